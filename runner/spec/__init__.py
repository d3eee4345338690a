"""
Define the grammar of a job file: frozen models, unknown keys refused.

What users write is read strictly: YAML has typed its scalars already, so ``"3"`` is no integer. An attribute whose
unit matters carries it in its name and is written without it: ``execution_timeout: 5m`` is `execution_timeout_s`.
"""

from runner.scalars import found as found
from runner.spec.artifact import ARTIFACT_KINDS as ARTIFACT_KINDS
from runner.spec.artifact import MOST_ARTIFACT_BYTES as MOST_ARTIFACT_BYTES
from runner.spec.artifact import UNREAD as UNREAD
from runner.spec.artifact import Artifact as Artifact
from runner.spec.artifact import attribute as attribute
from runner.spec.base import LABEL as LABEL
from runner.spec.base import NAME as NAME
from runner.spec.base import Spec as Spec
from runner.spec.base import keys as keys
from runner.spec.bounds import CostThreshold as CostThreshold
from runner.spec.bounds import CountThreshold as CountThreshold
from runner.spec.bounds import Thresholds as Thresholds
from runner.spec.bounds import TimeThreshold as TimeThreshold
from runner.spec.endpoints import LOCAL as LOCAL
from runner.spec.endpoints import REMOTE as REMOTE
from runner.spec.endpoints import STARTS as STARTS
from runner.spec.endpoints import Endpoint as Endpoint
from runner.spec.endpoints import LocalEndpoint as LocalEndpoint
from runner.spec.endpoints import RateLimits as RateLimits
from runner.spec.endpoints import RemoteEndpoint as RemoteEndpoint
from runner.spec.job import Job as Job
from runner.spec.layers import OWN as OWN
from runner.spec.layers import SETTINGS as SETTINGS
from runner.spec.layers import Defaults as Defaults
from runner.spec.layers import Layered as Layered
from runner.spec.layers import Profile as Profile
from runner.spec.outputs import Health as Health
from runner.spec.outputs import Keep as Keep
from runner.spec.outputs import Outputs as Outputs
from runner.spec.outputs import Require as Require
from runner.spec.rows import DATA_KINDS as DATA_KINDS
from runner.spec.rows import NOT_YET as NOT_YET
from runner.spec.rows import PACKINGS as PACKINGS
from runner.spec.rows import SOURCES as SOURCES
from runner.spec.rows import Rows as Rows
from runner.spec.rows import Sample as Sample
from runner.spec.settings import Policy as Policy
from runner.spec.settings import Poll as Poll
from runner.spec.settings import Retry as Retry
from runner.spec.settings import S3Config as S3Config
from runner.spec.settings import StopWhen as StopWhen
from runner.spec.settings import Timeouts as Timeouts
from runner.spec.times import Schedule as Schedule
from runner.spec.whole import MODELS as MODELS
from runner.spec.whole import JobFileSpec as JobFileSpec
from runner.spec.whole import WrittenJobFile as WrittenJobFile
from runner.spec.whole import written as written
