// The one global of Ebbtide: settings, trace, and the engine of every device.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "allocator/base/export.h"
#include "allocator/base/result.h"
#include "allocator/runtime/engine.h"
#include "hooks/settings.h"
#include "hooks/status_writer.h"
#include "hooks/swap_table.h"
#include "profiler/cupti/cupti_session.h"
#include "profiler/device_report.h"
#include "profiler/event_ring.h"
#include "profiler/owner_names.h"
#include "profiler/stack_table.h"
#include "profiler/trace_writer.h"

namespace ebbtide {

// Created at first use, never destroyed: blocks of its arenas may be freed after static destructors
// have run. Thread-safe.
class EBBTIDE_EXPORT Registry {
 public:
  static Registry& get();

  // Bad settings are an error here and behave as "off" everywhere else.
  const Result<Settings>& settings() const { return settings_; }
  Mode mode() const;
  // Why the plan file was not loaded; empty if nothing is wrong.
  const std::string& bad_plan() const { return bad_plan_; }

  // What an adaptor brings for its device.
  struct Device {
    EngineOptions options;
    std::unique_ptr<ArenaRange> range;
    std::unique_ptr<StreamFences> fences;
  };
  // Creates the engine of a device, which lives for ever. The settings and, if there is one, the saved
  // plan are applied to it.
  Engine& add(Device device);
  // Null when no adaptor serves the device.
  Engine* find(int device) const;
  std::vector<int> devices() const;

  SwapTable& swaps() { return swaps_; }
  OwnerNames& owner_names() { return owner_names_; }
  // Where adaptors tell from which stacks they are asked; null unless a trace with stacks is being written.
  StackTable* stacks() const { return finished_.load(std::memory_order_relaxed) ? nullptr : stacks_.get(); }
  // Where events go; null without a trace.
  EventSink* sink() const { return ring_.get(); }
  // Kernels, copies and CUDA's memory go to the trace from now on, if EBBTIDE_CUPTI asks for it. Call it when the driver
  // runs: before, a program may still fork. What hinders it is one line. Later calls do nothing.
  void record_device_activity();

  void mark(MarkKind kind, std::uint64_t source, const Extents& input);
  void settle();
  Result<DeviceReport> report(int device) const;
  std::string report_text() const;
  void finish();

 private:
  Registry();

  struct Entry {
    std::unique_ptr<StreamFences> fences;
    std::unique_ptr<Engine> engine;
  };

  // Engines are added and never removed: a list stays true without the lock.
  std::vector<Engine*> engines() const;
  void open_trace();
  void load_plans();
  void save_plans(const std::map<int, std::shared_ptr<const ProgramBook>>& books) const;
  void write_report() const;

  const Result<Settings> settings_;
  mutable std::mutex lock_;  // guards what follows
  std::map<int, Entry> entries_;
  std::map<int, ProgramBook> loaded_;
  std::unique_ptr<EventRing> ring_;
  std::unique_ptr<TraceWriter> trace_;
  std::unique_ptr<CuptiSession> cupti_;
  bool has_tried_cupti_ = false;
  bool plan_file_exists_ = false;
  std::string bad_plan_;  // why EBBTIDE_PLAN could not be loaded; empty if it could
  std::atomic<bool> finished_{false};
  std::unique_ptr<StatusWriter> status_;  // null while off; has a lock of its own
  OwnerNames owner_names_;  // has a lock of its own
  std::unique_ptr<StackTable> stacks_;  // has a lock of its own
  SwapTable swaps_;  // has a lock of its own
};

}  // namespace ebbtide
