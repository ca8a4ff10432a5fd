#!/usr/bin/env bash
# The main job on this machine, with nobody's account: an emulator of Alibaba's services with three days of
# SMS traffic on its queues, the production command that reads them, and the report.
# Flags are handed to the job, e.g. ./run_local.sh --join_patience_secs=3600. SMS=20000 sends more.
#
# ./run_local.sh outage: the job is down for six hours, the queues forget, and Alibaba is asked for what is lost.
set -euo pipefail
cd "$(dirname "$0")"

# shellcheck source=setup_venv.sh
source ./setup_venv.sh "."

if [ "${1:-}" = outage ]; then
  shift
  exec python -m benchmarks.outage "$@"
fi

data=.sms-receipts/local
mkdir -p "$data"
ready="$data/emulator.log"
sms-receipts emulator --port=0 --seed="$RANDOM" --traffic="${SMS:-5000}" --traffic_days=3 \
  --traffic_garbage=5 --traffic_send_log="$data/send_log" >"$ready" &
emulator=$!
trap 'kill "$emulator" 2>/dev/null; wait "$emulator" 2>/dev/null || true' EXIT

until grep -q '^emulator ready' "$ready"; do
  kill -0 "$emulator" 2>/dev/null || { echo "The emulator did not start; see above." >&2; exit 1; }
  sleep 0.1
done
url=$(sed -n 's/^emulator ready: \(http[^ ]*\).*/\1/p' "$ready")
uid=1000000000000001
echo "An emulator of MNS and the SMS API serves ${SMS:-5000} SMS of the last three days at $url."
echo

export ALIBABA_CLOUD_ACCESS_KEY_ID=emulator-key-id
export ALIBABA_CLOUD_ACCESS_KEY_SECRET=emulator-key-secret
sms-receipts run --until-empty \
  --mns_queues="Alicom-Queue-$uid-SmsReport,Alicom-Queue-$uid-SmsUp" \
  --mns_endpoint="$url" --dybaseapi_endpoint="$url" \
  --archive="$data/archive" --send_log="$data/send_log" --dataset="$data/dataset" "$@"
echo
sms-receipts report --dataset="$data/dataset"

cat <<TXT

Try next (after: source .venv/bin/activate):
  sms-receipts report --dataset=$data/dataset --by=campaign
  sms-receipts backfill --from=$(TZ=UTC-8 date -d '-1 day' +%F 2>/dev/null || TZ=UTC-8 date -v-1d +%F) --to=$(TZ=UTC-8 date +%F) \\
    --archive=$data/archive --send_log=$data/send_log --dataset=$data/dataset
  SMS=100000 ./run_local.sh      # more of it, into the same tables
  ./run_local.sh outage          # what a long outage loses, and how it is found again
README.md says how to read the queues of an account, and how to try that against an emulator that stays.
TXT
