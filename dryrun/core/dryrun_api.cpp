#include "dryrun/core/dryrun_api.h"

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "dryrun/core/faults.h"
#include "dryrun/core/report.h"
#include "dryrun/core/settings.h"
#include "dryrun/core/simulator.h"

namespace {

using ebbtide::dryrun::Counters;
using ebbtide::dryrun::Simulator;

bool has_device(int device) { return device >= 0 && device < Simulator::instance().device_count(); }

size_t write(const std::string& text, char* buffer, size_t capacity) {
  if (capacity > 0) std::snprintf(buffer, capacity, "%s", text.c_str());
  return text.size();
}

}  // namespace

extern "C" {

int64_t ebbtide_dryrun_used(int device) {
  return has_device(device) ? Simulator::instance().use(device).used.value : -1;
}

int64_t ebbtide_dryrun_peak(int device) {
  return has_device(device) ? Simulator::instance().use(device).peak.value : -1;
}

int64_t ebbtide_dryrun_capacity(int device) {
  return has_device(device) ? Simulator::instance().use(device).capacity.value : -1;
}

int ebbtide_dryrun_reset_peak(int device) {
  if (!has_device(device)) return -1;
  Simulator::instance().reset_peak(device);
  return 0;
}

int ebbtide_dryrun_device_count(void) { return Simulator::instance().device_count(); }

int64_t ebbtide_dryrun_counter(const char* name) {
  const Counters& counters = Simulator::instance().counters();
  const std::pair<std::string_view, const std::atomic<std::int64_t>*> table[] = {
      {"mallocs", &counters.mallocs},
      {"frees", &counters.frees},
      {"physical_creates", &counters.creates},
      {"maps", &counters.maps},
      {"unmaps", &counters.unmaps},
      {"out_of_memory", &counters.out_of_memory},
      {"device_synchronizations", &counters.device_synchronizations},
      {"stream_synchronizations", &counters.stream_synchronizations},
      {"kernel_launches", &counters.kernel_launches},
      {"copies", &counters.copies},
      {"communicators", &counters.communicators},
      {"uncomputed_reads", &counters.uncomputed_reads},
      {"typical_choices", &counters.typical_choices},
      {"large_integers", &counters.large_integers},
      {"unimplemented_calls", &counters.unimplemented_calls},
  };
  for (const auto& [key, value] : table) {
    if (key == name) return *value;
  }
  return -1;
}

int ebbtide_dryrun_content(const void* pointer, size_t size) {
  return static_cast<int>(Simulator::instance().content(pointer, size));
}

int ebbtide_dryrun_put(void* target, const void* source, size_t size) {
  return Simulator::instance().put(target, source, size) ? 0 : -1;
}

void ebbtide_dryrun_at_end(void (*call)(void)) { ebbtide::dryrun::set_ending(call); }

void ebbtide_dryrun_fail(int64_t nth, unsigned kinds) { ebbtide::dryrun::make_fail(nth, kinds); }

int64_t ebbtide_dryrun_fallible_calls(void) { return ebbtide::dryrun::fallible_calls(); }

size_t ebbtide_dryrun_report(char* buffer, size_t capacity) {
  return write(ebbtide::dryrun::make_report(), buffer, capacity);
}

size_t ebbtide_dryrun_settings_problem(char* buffer, size_t capacity) {
  const auto settings = ebbtide::dryrun::read_settings();
  return write(settings ? std::string() : settings.error().message, buffer, capacity);
}

}  // extern "C"
