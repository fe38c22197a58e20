#!/bin/sh
# daily-digits: a small scheduler that sleeps on the cluster at RAY_API_SERVER_ADDRESS (http://HEAD:8265) and runs
# each tick as it comes due. Run this again whenever the head was started anew: what is published is left
# alone, and Ray refuses the submission id of a scheduler that it has already.
set -eu
exec ray job submit --no-wait \
  --submission-id daily-digits-scheduler \
  --working-dir /srv/jobs \
  --entrypoint-num-cpus 0 \
  --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}' \
  -- batchonnx schedule run daily-ray.yaml --quiet
