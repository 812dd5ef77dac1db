# Sourced after bootstrap.sh: runs the steps of a script one after another, and says at the end which failed.
# Sets: failed (1 after a failure), results (lines for the end).

failed=0
results=()
step_log=$ROOT/build-step.log

# failures_in LOG: what failed, as pytest and ctest name it, a line each.
failures_in() {
  grep -aE '^(FAILED|ERROR) |^[[:space:]]*[0-9]+ - .+ \((Failed|Timeout|Not Run|SEGFAULT|.*aborted)\)' "$1" | head -n 20 || true
}

# reasons_in LOG: the end of what pytest says about it. An exit status stands only there.
reasons_in() {
  grep -aE '^E  ' "$1" | tail -n 15 || true
}

# run_step NAME COMMAND...: what the step prints is long, so what failed in it is said again at the end.
run_step() {
  local name=$1 line
  shift
  say "$name"
  if ("$@") 2>&1 | tee "$step_log"; then  # a subshell: a step that ends the script ends only itself
    results+=("passed  $name")
    return
  fi
  results+=("FAILED  $name")
  failed=1
  while IFS= read -r line; do
    results+=("        ${line:0:300}")
  done < <(failures_in "$step_log"; reasons_in "$step_log")
}

# build_failed LOG NAME: for builds in the background that did not work.
build_failed() {
  cat "$1" >&2
  results+=("FAILED  $2")
  failed=1
}

show_results() {
  say "result"
  printf '    %s\n' "${results[@]}"
}
