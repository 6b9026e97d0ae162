#!/usr/bin/env bash
# A run as a job, with a task and a reward of your own that travel with it. Once for each shell, as docs/clusters.md says:
#
#   export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 RAY_AUTH_MODE=token
#
# then a policy from nothing, and its training, in a folder that all nodes see:
#
#   examples/job_on_a_cluster.sh sft output=/shared/runs
#   examples/job_on_a_cluster.sh train output=/shared/runs
#
# What goes to the cluster is this folder and the runtime environment; the packages are in the nodes' image.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command=${1:?say sft or train}
shift
exec ray job submit --working-dir "$here" --runtime-env "$here/../clusters/runtime_env.yaml" -- \
    python -m airls_ray.cli.main "$command" job_on_a_cluster.yaml "$@"
