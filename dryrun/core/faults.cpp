#include "dryrun/core/faults.h"

#include <atomic>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

namespace {

// One in the process, as the simulated machine is. No lock: programs call the driver often.
struct Faults {
  std::atomic<std::int64_t> nth = Simulator::instance().settings().failing_call;
  std::atomic<unsigned> kinds = ~0U;
  std::atomic<std::int64_t> calls = 0;
};

Faults& faults() {
  static Faults* faults = new Faults();  // never destroyed: threads call until the process is gone
  return *faults;
}

}  // namespace

bool is_made_to_fail(FallibleCall call) {
  Faults& all = faults();
  if ((all.kinds & static_cast<unsigned>(call)) == 0) return false;
  return ++all.calls == all.nth;
}

void make_fail(std::int64_t nth, unsigned kinds) {
  Faults& all = faults();
  all.nth = nth;
  all.kinds = kinds;
  all.calls = 0;
}

std::int64_t fallible_calls() {
  return faults().calls;
}

}  // namespace ebbtide::dryrun
