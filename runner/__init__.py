"""A declarative, YAML-driven job runner for RunPod's serverless endpoints."""
