#include "dryrun/core/report.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "dryrun/core/simulator.h"
#include "dryrun/core/time_report.h"

namespace ebbtide::dryrun {

namespace {

std::string (*report_section)() = nullptr;
pid_t reporting_process = 0;
std::atomic<Ending> ending = nullptr;

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return result + '"';
}

void add(std::string& json, const char* key, std::int64_t value) {
  json += "  \"" + std::string(key) + "\": " + std::to_string(value) + ",\n";
}

std::string describe_device(int index, const DeviceUse& use) {
  return "    {\"index\": " + std::to_string(index) +
         ", \"capacity_bytes\": " + std::to_string(use.capacity.value) +
         ", \"used_bytes\": " + std::to_string(use.used.value) +
         ", \"peak_bytes\": " + std::to_string(use.peak.value) + "}";
}

void write_file(const char* variable, const std::string& path, const std::string& content) {
  if (path.empty()) return;
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    std::fprintf(stderr, "ebbtide dryrun: %s=%s cannot be written\n", variable, path.c_str());
    return;
  }
  std::fwrite(content.data(), 1, content.size(), file);
  std::fclose(file);
}

// An empty report: a device was used by a program that did not come to its end.
void leave_mark(const std::string& path) {
  if (path.empty()) return;
  if (std::FILE* file = std::fopen(path.c_str(), "a")) std::fclose(file);
}

void finish() {
  static std::atomic<bool> is_finished = false;
  if (getpid() != reporting_process || is_finished.exchange(true)) return;
  Simulator& simulator = Simulator::instance();
  const std::int64_t reads = simulator.counters().uncomputed_reads;
  if (reads > 0) {
    std::fprintf(stderr,
                 "ebbtide dryrun: the program read %lld value(s) that a simulated device does not "
                 "compute, as typical ones (%s); first: %s\n",
                 static_cast<long long>(reads), to_text(simulator.settings().typical).c_str(),
                 simulator.first_uncomputed_read().c_str());
  }
  const Settings& settings = simulator.settings();
  if (!settings.report_path.empty()) {
    write_file("EBBTIDE_DRYRUN_REPORT", settings.report_path, make_report());
  }
  if (!settings.timeline_path.empty()) {
    write_file("EBBTIDE_DRYRUN_TIMELINE", settings.timeline_path,
               timeline_report(simulator.timeline(), simulator.memory_curve()));
  }
}

}  // namespace

void end_program() {
  finish();
  const Ending last = ending;
  if (last != nullptr) last();
  std::fflush(nullptr);
  _exit(0);  // the program's own handlers expect a run that came to its end
}

void set_ending(Ending call) { ending = call; }

void set_report_section(std::string (*make)()) { report_section = make; }

std::string make_report() {
  Simulator& simulator = Simulator::instance();
  Counters& counters = simulator.counters();
  std::string json = "{\n  \"device\": " + quoted(simulator.model().option) +
                     ",\n  \"name\": " + quoted(simulator.model().name) + ",\n  \"devices\": [\n";
  for (int i = 0; i < simulator.device_count(); ++i) {
    json +=
        describe_device(i, simulator.use(i)) + (i + 1 < simulator.device_count() ? ",\n" : "\n");
  }
  json += "  ],\n";
  add(json, "mallocs", counters.mallocs);
  add(json, "frees", counters.frees);
  add(json, "physical_creates", counters.creates);
  add(json, "maps", counters.maps);
  add(json, "unmaps", counters.unmaps);
  add(json, "out_of_memory", counters.out_of_memory);
  add(json, "device_synchronizations", counters.device_synchronizations);
  add(json, "stream_synchronizations", counters.stream_synchronizations);
  add(json, "kernel_launches", counters.kernel_launches);
  add(json, "copies", counters.copies);
  add(json, "communicators", counters.communicators);
  add(json, "uncomputed_reads", counters.uncomputed_reads);
  add(json, "typical_choices", counters.typical_choices);
  add(json, "large_integers", counters.large_integers);
  add(json, "unimplemented_calls", counters.unimplemented_calls);
  add(json, "peak_pinned_bytes", simulator.peak_pinned().value);
  json += "  \"typical\": " + quoted(to_text(simulator.settings().typical)) + ",\n";
  json += "  \"first_uncomputed_read\": " + quoted(simulator.first_uncomputed_read()) + ",\n";
  json += "  \"torch\": " + (report_section == nullptr ? std::string("null") : report_section());
  json += ",\n  \"time\": " + time_report(simulator.timeline());
  return json + "\n}\n";
}

void write_report_at_exit(const std::string& path) {
  reporting_process = getpid();
  leave_mark(path);
  std::atexit(finish);
  // After Ctrl-C the interpreter kills itself behind its own handlers: those of atexit do not run.
  using Register = int (*)(void (*)());
  if (const auto at_exit = reinterpret_cast<Register>(dlsym(RTLD_DEFAULT, "Py_AtExit"))) at_exit(finish);
}

}  // namespace ebbtide::dryrun
