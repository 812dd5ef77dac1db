#include "hooks/registry.h"

#include <cstdlib>
#include <fstream>
#include <pthread.h>
#include <utility>

#include "allocator/base/log.h"
#include "allocator/runtime/plan_file.h"
#include "allocator/runtime/plan_maker.h"
#include "hooks/engine_report.h"
#include "profiler/report_text.h"

namespace ebbtide {
namespace {

Result<Settings> read_environment() {
  return Settings::read([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace

Registry& Registry::get() {
  static Registry* const registry = new Registry;  // never destroyed, see the class comment
  return *registry;
}

Registry::Registry() : settings_(read_environment()) {
  ::pthread_atfork(nullptr, nullptr, [] { get().swaps_.after_fork_child(); });
  if (!settings_.ok()) return;
  set_log_level(settings_.value().log_level);
  if (mode() == Mode::kOff) return;
  open_trace();
  load_plans();
  status_ = std::make_unique<StatusWriter>(StatusPage::own_path());
  ::pthread_atfork(
      [] { for (auto& [device, entry] : get().entries_) entry.engine->before_fork(); },
      [] { for (auto& [device, entry] : get().entries_) entry.engine->after_fork_parent(); },
      [] {
        for (auto& [device, entry] : get().entries_) entry.engine->after_fork_child();
        get().finished_ = true;
      });
}

Mode Registry::mode() const { return settings_.ok() ? settings_.value().mode : Mode::kOff; }

void Registry::open_trace() {
  const std::string& path = settings_.value().trace_path;
  const bool has_stacks = settings_.value().trace_stacks != TraceStacks::kOff;
  if (path.empty()) {
    if (settings_.value().cupti.is_on) EBBTIDE_WARN("EBBTIDE_CUPTI: it writes to a trace: set EBBTIDE_TRACE=<path>, too");
    if (has_stacks) EBBTIDE_WARN("EBBTIDE_TRACE_STACKS: stacks are part of a trace: set EBBTIDE_TRACE=<path>, too");
    return;
  }
  ring_ = std::make_unique<EventRing>();
  Result<std::unique_ptr<TraceWriter>> writer = TraceWriter::open(path, *ring_);
  if (!writer.ok()) {
    EBBTIDE_WARN("EBBTIDE_TRACE=%s: %s; going on without a trace", path.c_str(), writer.error().message.c_str());
    ring_.reset();
    return;
  }
  trace_ = std::move(writer).value();
  if (has_stacks) stacks_ = std::make_unique<StackTable>(*ring_, owner_names_);
}

void Registry::record_device_activity() {
  const std::lock_guard lock(lock_);
  if (trace_ == nullptr || !settings_.value().cupti.is_on || std::exchange(has_tried_cupti_, true)) return;
  auto started = CuptiSession::start(settings_.value().cupti.library, *ring_, owner_names_);
  if (started.ok()) {
    cupti_ = std::move(started).value();
  } else {
    EBBTIDE_WARN("EBBTIDE_CUPTI: %s; going on without kernel and copy times", started.error().message.c_str());
  }
}

// A missing file is where the plan will be saved; a file that is no plan is left alone.
void Registry::load_plans() {
  const std::string& path = settings_.value().plan_path;
  if (path.empty() || !std::ifstream(path)) return;
  plan_file_exists_ = true;
  Result<PlanBooks> books = PlanFile::load(path);
  if (books.ok()) {
    loaded_ = std::move(books).value();
    return;
  }
  bad_plan_ = "EBBTIDE_PLAN: " + books.error().message + "; remove the file to have it made anew";
}

Engine& Registry::add(Device device) {
  const std::lock_guard lock(lock_);
  const int index = device.options.device;
  device.options.observe_only = mode() == Mode::kObserve;
  device.options.sink = ring_.get();
  ProgramBook book;
  if (const auto found = loaded_.find(index); found != loaded_.end()) book = std::move(found->second);
  Entry& entry = entries_[index];
  entry.fences = std::move(device.fences);
  entry.engine = std::make_unique<Engine>(device.options, std::move(device.range), *entry.fences, std::move(book));
  return *entry.engine;
}

Engine* Registry::find(int device) const {
  const std::lock_guard lock(lock_);
  const auto found = entries_.find(device);
  return found == entries_.end() ? nullptr : found->second.engine.get();
}

std::vector<int> Registry::devices() const {
  const std::lock_guard lock(lock_);
  std::vector<int> devices;
  for (const auto& [device, entry] : entries_) devices.push_back(device);
  return devices;
}

void Registry::mark(MarkKind kind, std::uint64_t source, const Extents& input) {
  const std::vector<Engine*> marked = engines();
  for (Engine* engine : marked) engine->mark(kind, source, input);
  // A forked child has its parent's page.
  if (status_ != nullptr && !finished_.load(std::memory_order_relaxed)) status_->mark(kind, marked, swaps_);
}

void Registry::settle() {
  for (Engine* engine : engines()) engine->settle();
}

std::vector<Engine*> Registry::engines() const {
  const std::lock_guard lock(lock_);
  std::vector<Engine*> engines;
  for (const auto& [device, entry] : entries_) engines.push_back(entry.engine.get());
  return engines;
}

Result<DeviceReport> Registry::report(int device) const {
  const Engine* engine = find(device);
  if (engine == nullptr) {
    return Error{ErrorCode::kUnsupported, "no adaptor serves device " + std::to_string(device)};
  }
  DeviceReport report = report_of(*engine);
  report.lost_events = ring_ == nullptr ? 0 : static_cast<std::int64_t>(ring_->lost());
  return report;
}

std::string Registry::report_text() const {
  std::string text;
  for (const int device : devices()) {
    if (const Result<DeviceReport> device_report = report(device); device_report.ok()) {
      text += five_line_report(device_report.value());
    }
  }
  return text;
}

void Registry::finish() {
  if (mode() == Mode::kOff || finished_.exchange(true)) return;
  std::map<int, std::shared_ptr<const ProgramBook>> books;
  for (auto& [device, entry] : entries_) books[device] = entry.engine->finish();
  save_plans(books);
  status_->close();
  if (cupti_ != nullptr) cupti_->stop();
  if (trace_ != nullptr) static_cast<void>(trace_->close());  // it has told what went wrong when it did
  write_report();
}

void Registry::save_plans(const std::map<int, std::shared_ptr<const ProgramBook>>& books) const {
  const std::string& path = settings_.value().plan_path;
  if (path.empty() || plan_file_exists_ || mode() == Mode::kObserve) return;
  PlanBooks saved;
  for (const auto& [device, book] : books) {
    if (book == nullptr || book->programs.empty()) continue;
    ProgramBook& copy = saved[device] = *book;
    if (copy.squatters.empty()) continue;
    // They belong to this run; the next one need not go round them.
    copy.squatters.clear();
    for (Program& program : copy.programs) program.planned = false;
    if (const Status made = make_plans(copy, PlanOptions{}); !made.ok()) saved.erase(device);
  }
  if (saved.empty()) {
    EBBTIDE_WARN("EBBTIDE_PLAN=%s: nothing to save, no iteration was seen whole", path.c_str());
    return;
  }
  const Status status = PlanFile::save(path, saved);
  if (!status.ok()) EBBTIDE_WARN("EBBTIDE_PLAN: %s", status.error().message.c_str());
}

void Registry::write_report() const {
  const ReportTarget& target = settings_.value().report;
  if (target.kind == ReportTarget::Kind::kOff || entries_.empty()) return;
  if (target.kind == ReportTarget::Kind::kStderr) {
    std::fputs(report_text().c_str(), stderr);
    return;
  }
  std::ofstream file(target.path, std::ios::trunc);
  if (target.kind == ReportTarget::Kind::kText) file << report_text();
  if (target.kind == ReportTarget::Kind::kJson) {
    file << "{\"schema\": \"ebbtide.exit-report/1\", \"devices\": [";
    const char* separator = "";
    for (const int device : devices()) {
      const Result<DeviceReport> device_report = report(device);
      if (!device_report.ok()) continue;
      file << separator << json_of(device_report.value());
      separator = ", ";
    }
    file << "]}\n";
  }
  if (!file) EBBTIDE_WARN("EBBTIDE_REPORT=%s: cannot be written", target.path.c_str());
}

}  // namespace ebbtide
