// RunPod's own JavaScript SDK as its README has it: run, then status every 5 s; or runSync.

import { createReadStream, createWriteStream } from "node:fs"
import { createRequire } from "node:module"
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"

const LOOK_MS = 5000

const task = JSON.parse(process.argv[2])
const found = createRequire(`${task.sdk}/x.js`).resolve("runpod-sdk")
const { default: runpodSdk } = await import(pathToFileURL(found))
console.log = () => {} // it prints each look

const endpoint = runpodSdk("key", { baseUrl: task.base_url }).endpoint(task.endpoint)
const rows = createInterface({ input: createReadStream(task.rows) })[Symbol.asyncIterator]()
const results = createWriteStream(task.results)
let lost = 0

async function one(given) {
  if (task.mode === "runsync") return await endpoint.runSync({ input: given })
  const { id } = await endpoint.run({ input: given })
  for (;;) {
    const job = await endpoint.status(id)
    if (job.completed) return job
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
}

async function lane() {
  for (;;) {
    const { value, done } = await rows.next()
    if (done) return
    try {
      const job = await one(JSON.parse(value))
      if (!job.succeeded) throw new Error(job.status)
      results.write(JSON.stringify({ output: job.output }) + "\n")
    } catch {
      lost += 1
    }
  }
}

await Promise.all(Array.from({ length: task.in_flight }, lane))
await new Promise((resolve) => results.end(resolve))
process.stdout.write(JSON.stringify({ lost }) + "\n")
