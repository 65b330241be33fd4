#!/usr/bin/env bash
# Pushes a release, plans its rollout, adds the plan to the job's page, and starts it if asked to. What it takes is in the
# environment, as action.yml says; it needs `fleetd`. It ends as the last command of fleetd did: 5 when the
# rollout halted or failed, 6 when the plan became stale, 7 when the wait is over and the rollout goes on.
set -euo pipefail

for name in FLEETD_SERVER FLEETD_FLEET FLEETD_TOKEN RELEASE TARGETS; do
    if [ -z "${!name:-}" ]; then
        echo "error: $name is not set" >&2
        exit 2
    fi
done
case "${START:=false}" in true | false) ;; *)
    echo "error: start is true or false, not '$START'" >&2
    exit 2
    ;;
esac

# The login and the key are gone with the job.
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
export FLEETD_CONFIG_DIR="$folder/config"
umask 077

# Splits a text into one argument a line, without empty lines, into the array of that name.
arguments_of() {
    local -n lines="$1"
    lines=()
    local line
    while IFS= read -r line; do
        if [ -n "$line" ]; then lines+=("$line"); fi
    done <<<"$2"
}

arguments_of artifacts "${RELEASE_ARTIFACTS:-}"
arguments_of push_flags "${PUSH_FLAGS:-}"
arguments_of targets "$TARGETS"
arguments_of plan_flags "${PLAN_FLAGS:-}"

printf '%s' "$FLEETD_TOKEN" | fleetd login "$FLEETD_SERVER" --fleet "$FLEETD_FLEET" --token -

if [ "${#artifacts[@]}" -gt 0 ]; then
    if [ -z "${RELEASE_KEY:-}" ]; then
        echo "error: key is not set, and a release has to be signed" >&2
        exit 2
    fi
    printf '%s\n' "$RELEASE_KEY" >"$folder/release.key"
    fleetd release push "$RELEASE" --key "$folder/release.key" "${artifacts[@]/#/--artifact=}" "${push_flags[@]}"
fi

# Hands the first id with a prefix in a text on to later steps, and prints it.
hand_on() {
    if ! [[ "$3" =~ $2[0-9a-z]+ ]]; then
        echo "error: fleetd named no $1" >&2
        exit 1
    fi
    echo "$1=${BASH_REMATCH[0]}" >>"${GITHUB_OUTPUT:-/dev/null}"
    echo "$1 ${BASH_REMATCH[0]}"
}

plan="$folder/plan.json"
planned="$(fleetd --json rollout plan "$RELEASE" "${targets[@]}" "${plan_flags[@]}" --out "$plan" \
    --markdown "${GITHUB_STEP_SUMMARY:-$folder/summary.md}")"
hand_on plan pln_ "$planned"

if [ "$START" = true ]; then
    started="$(fleetd --json rollout start "$plan")"
    hand_on rollout rol_ "$started"
    if [ -n "${WAIT:-}" ]; then
        fleetd rollout watch "${BASH_REMATCH[0]}" --timeout "$WAIT"
    fi
fi
