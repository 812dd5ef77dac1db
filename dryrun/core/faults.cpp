#include "dryrun/core/faults.h"

#include <mutex>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

namespace {

// One in the process, as the simulated machine is.
struct Faults {
  std::mutex mutex;  // guards all
  std::int64_t nth = Simulator::instance().settings().failing_call;
  unsigned kinds = ~0U;
  std::int64_t calls = 0;
};

Faults& faults() {
  static Faults* faults = new Faults();  // never destroyed: threads call until the process is gone
  return *faults;
}

}  // namespace

bool is_made_to_fail(FallibleCall call) {
  Faults& all = faults();
  const std::lock_guard lock(all.mutex);
  if ((all.kinds & static_cast<unsigned>(call)) == 0) return false;
  return ++all.calls == all.nth;
}

void make_fail(std::int64_t nth, unsigned kinds) {
  Faults& all = faults();
  const std::lock_guard lock(all.mutex);
  all.nth = nth;
  all.kinds = kinds;
  all.calls = 0;
}

std::int64_t fallible_calls() {
  Faults& all = faults();
  const std::lock_guard lock(all.mutex);
  return all.calls;
}

}  // namespace ebbtide::dryrun
