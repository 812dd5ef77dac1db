#include "dryrun/core/simulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <set>

#include "dryrun/core/operator_context.h"
#include "dryrun/core/report.h"

namespace ebbtide::dryrun {

namespace {

// A handle is its device's index above, and the device's own number below.
constexpr int kDeviceShift = 48;

std::uint64_t number_in_device(std::uint64_t handle) {
  return handle & ((std::uint64_t{1} << kDeviceShift) - 1);
}

}  // namespace

OperatorContext& operator_context() {
  static thread_local OperatorContext context;
  return context;
}

int& current_device() {
  static thread_local int device = 0;
  return device;
}

void report_unimplemented(const char* function) {
  static std::mutex mutex;
  static std::set<std::string> seen;
  ++Simulator::instance().counters().unimplemented_calls;
  const std::lock_guard lock(mutex);
  if (!seen.insert(function).second) return;
  std::fprintf(stderr, "ebbtide dryrun: %s is not simulated; the call fails\n", function);
}

Simulator& Simulator::instance() {
  // Never destroyed: threads and static destructors call in until the process is gone.
  static Simulator* simulator = new Simulator();
  return *simulator;
}

Simulator::Simulator() {
  Result<Settings> settings = read_settings();
  if (settings) settings_ = settings.value();
  timeline_ = std::make_unique<Timeline>(settings_.model.speed, settings_.device_count,
                                         settings_.ranks, !settings_.timeline_path.empty());
  if (!settings) {
    std::fprintf(stderr, "ebbtide dryrun: %s\n", settings.error().message.c_str());
    return;
  }
  for (int i = 0; i < settings_.device_count; ++i) {
    auto memory = std::make_unique<DeviceMemory>(settings_.capacity);
    if (!memory->is_valid()) {
      std::fprintf(stderr, "ebbtide dryrun: the host refuses to reserve addresses for device %d\n",
                   i);
      break;
    }
    devices_.push_back(std::move(memory));
  }
  write_report_at_exit(settings_.report_path);
}

DeviceMemory* Simulator::memory_of(std::uintptr_t address) {
  for (const auto& device : devices_) {
    if (device->contains(address)) return device.get();
  }
  return nullptr;
}

DeviceUse Simulator::use(int device) {
  const std::lock_guard lock(mutex_);
  const DeviceMemory& memory = *devices_[static_cast<std::size_t>(device)];
  return {memory.capacity(), memory.used(), memory.peak()};
}

void Simulator::reset_peak(int device) {
  const std::lock_guard lock(mutex_);
  devices_[static_cast<std::size_t>(device)]->reset_peak();
}

std::uintptr_t Simulator::allocate(int device, Bytes size) {
  ++counters_.mallocs;
  const std::lock_guard lock(mutex_);
  const auto address = devices_[static_cast<std::size_t>(device)]->allocate(size);
  if (!address) ++counters_.out_of_memory;
  return address.value_or(0);
}

bool Simulator::deallocate(std::uintptr_t address) {
  ++counters_.frees;
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(address);
  const auto size = memory == nullptr ? std::nullopt : memory->deallocate(address);
  if (!size) return false;
  contents_.mark(address, static_cast<std::size_t>(size->value), Content::kNotComputed);
  return true;
}

std::uintptr_t Simulator::reserve(int device, Bytes size, Bytes alignment) {
  const std::lock_guard lock(mutex_);
  return devices_[static_cast<std::size_t>(device)]->reserve(size, alignment).value_or(0);
}

bool Simulator::unreserve(std::uintptr_t address) {
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(address);
  return memory != nullptr && memory->unreserve(address);
}

int Simulator::device_of_handle(std::uint64_t handle) {
  return static_cast<int>(handle >> kDeviceShift) - 1;
}

std::uint64_t Simulator::create_physical(int device, Bytes size) {
  ++counters_.creates;
  const std::lock_guard lock(mutex_);
  const auto handle = devices_[static_cast<std::size_t>(device)]->create(size);
  if (!handle) {
    ++counters_.out_of_memory;
    return 0;
  }
  return (static_cast<std::uint64_t>(device) + 1) << kDeviceShift | *handle;
}

bool Simulator::release_physical(std::uint64_t handle) {
  const int device = device_of_handle(handle);
  if (device < 0 || device >= device_count()) return false;
  const std::lock_guard lock(mutex_);
  return devices_[static_cast<std::size_t>(device)]->release(number_in_device(handle));
}

SharedFile::Note Simulator::note_of(std::uintptr_t begin, Bytes size) const {
  SharedFile::Note note;
  note.size = static_cast<std::uint64_t>(size.value);
  if (begin == 0) return note;
  contents_.for_each(begin, note.size, [&](std::uintptr_t at, std::size_t length, Content content) {
    if (content != Content::kNotComputed) note.stretches.push_back({at - begin, length, content});
  });
  return note;
}

void Simulator::mark(std::uintptr_t begin, const SharedFile::Note& note) {
  for (const SharedFile::Stretch& stretch : note.stretches) contents_.mark(begin + stretch.offset, stretch.size, stretch.content);
}

// Only what was computed is worth copying.
SharedFile Simulator::make_file(std::uintptr_t begin, Bytes size) {
  SharedFile file = SharedFile::create(static_cast<std::size_t>(size.value));
  if (!file.is_open()) return file;
  for (const SharedFile::Stretch& stretch : note_of(begin, size).stretches) {
    if (!file.write(stretch.offset, to_pointer(begin + stretch.offset), stretch.size)) return {};
  }
  return file;
}

int Simulator::share(const void* pointer) {
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(to_address(pointer));
  if (memory == nullptr) return -1;
  const SharedFile* file =
      memory->share_allocation(to_address(pointer), [this](std::uintptr_t begin, Bytes size) { return make_file(begin, size); });
  if (file == nullptr) return -1;
  const auto range = memory->find(to_address(pointer));
  return file->write(note_of(range->first, range->second)) ? file->descriptor() : -1;
}

int Simulator::share_physical(std::uint64_t handle) {
  const int device = device_of_handle(handle);
  if (device < 0 || device >= device_count()) return -1;
  const std::lock_guard lock(mutex_);
  std::uintptr_t at = 0;
  Bytes whole;
  DeviceMemory& memory = *devices_[static_cast<std::size_t>(device)];
  const SharedFile* file = memory.share_physical(number_in_device(handle), [&](std::uintptr_t begin, Bytes size) {
    at = begin;
    whole = size;
    return make_file(begin, size);
  });
  if (file == nullptr || (at != 0 && !file->write(note_of(at, whole)))) return -1;
  return file->descriptor();
}

std::uintptr_t Simulator::open_shared(int device, SharedFile file) {
  const auto note = file.read_note();
  if (!note) return 0;
  const std::lock_guard lock(mutex_);
  const auto address = devices_[static_cast<std::size_t>(device)]->open(std::move(file), Bytes{static_cast<std::int64_t>(note->size)});
  if (address) mark(*address, *note);
  return address.value_or(0);
}

bool Simulator::close_shared(std::uintptr_t address) {
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(address);
  const auto size = memory == nullptr ? std::nullopt : memory->close(address);
  if (!size) return false;
  contents_.mark(address, static_cast<std::size_t>(size->value), Content::kNotComputed);
  return true;
}

std::uint64_t Simulator::adopt_physical(int device, SharedFile file) {
  auto note = file.read_note();
  if (!note) return 0;
  const std::lock_guard lock(mutex_);
  const Bytes size{static_cast<std::int64_t>(note->size)};
  const std::uint64_t number = devices_[static_cast<std::size_t>(device)]->adopt(std::move(file), size);
  const std::uint64_t handle = (static_cast<std::uint64_t>(device) + 1) << kDeviceShift | number;
  adopted_.emplace(handle, std::move(*note));
  return handle;
}

MapStatus Simulator::map(std::uintptr_t address, Bytes size, std::uint64_t handle) {
  ++counters_.maps;
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(address);
  const int device = device_of_handle(handle);
  if (memory == nullptr) return MapStatus::kOutsideReservation;
  if (device < 0 || device >= device_count() ||
      devices_[static_cast<std::size_t>(device)].get() != memory) {
    return MapStatus::kNoSuchHandle;
  }
  const MapStatus status = memory->map(address, size, number_in_device(handle));
  const auto adopted = adopted_.find(handle);
  if (status == MapStatus::kOk && adopted != adopted_.end()) mark(address, adopted->second);
  return status;
}

MapStatus Simulator::unmap(std::uintptr_t address, Bytes size) {
  ++counters_.unmaps;
  const std::lock_guard lock(mutex_);
  DeviceMemory* memory = memory_of(address);
  if (memory == nullptr) return MapStatus::kNotMapped;
  const MapStatus status = memory->unmap(address, size);
  if (status == MapStatus::kOk) {
    contents_.mark(address, static_cast<std::size_t>(size.value), Content::kNotComputed);
  }
  return status;
}

std::uint64_t Simulator::retain_physical(std::uintptr_t address) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (!devices_[i]->contains(address)) continue;
    const auto handle = devices_[i]->handle_at(address);
    if (!handle || !devices_[i]->retain(*handle)) return 0;
    return (static_cast<std::uint64_t>(i) + 1) << kDeviceShift | *handle;
  }
  return 0;
}

bool Simulator::can_pin(std::size_t size) {
  const std::lock_guard lock(mutex_);
  return pinned_bytes_ + size <= static_cast<std::size_t>(settings_.pinnable.value);
}

void Simulator::pin(std::size_t size) {
  pinned_bytes_ += size;
  peak_pinned_bytes_ = std::max(peak_pinned_bytes_, pinned_bytes_);
}

Bytes Simulator::pinned() {
  const std::lock_guard lock(mutex_);
  return {static_cast<std::int64_t>(pinned_bytes_)};
}

Bytes Simulator::peak_pinned() {
  const std::lock_guard lock(mutex_);
  return {static_cast<std::int64_t>(peak_pinned_bytes_)};
}

void* Simulator::allocate_pinned(std::size_t size) {
  void* pointer = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pointer == MAP_FAILED) return nullptr;
  const std::lock_guard lock(mutex_);
  pinned_.emplace(to_address(pointer), PinnedRange{size, true});
  pin(size);
  return pointer;
}

bool Simulator::deallocate_pinned(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto found = pinned_.find(to_address(pointer));
  if (found == pinned_.end() || !found->second.owned) return false;
  munmap(pointer, found->second.size);
  pinned_bytes_ -= found->second.size;
  pinned_.erase(found);
  return true;
}

bool Simulator::register_host(void* pointer, std::size_t size) {
  const std::lock_guard lock(mutex_);
  const bool is_new = pinned_.emplace(to_address(pointer), PinnedRange{size, false}).second;
  if (is_new) pin(size);
  return is_new;
}

bool Simulator::unregister_host(void* pointer) {
  const std::lock_guard lock(mutex_);
  const auto found = pinned_.find(to_address(pointer));
  if (found == pinned_.end() || found->second.owned) return false;
  stashed_.mark(found->first, found->second.size, Content::kNotComputed);
  pinned_bytes_ -= found->second.size;
  pinned_.erase(found);
  return true;
}

bool Simulator::is_pinned(std::uintptr_t address) const {
  auto found = pinned_.upper_bound(address);
  if (found == pinned_.begin()) return false;
  --found;
  return address - found->first < found->second.size && found->second.owned;
}

bool Simulator::is_registered(std::uintptr_t address) const {
  auto found = pinned_.upper_bound(address);
  if (found == pinned_.begin()) return false;
  --found;
  return address - found->first < found->second.size && !found->second.owned;
}

PointerFacts Simulator::facts(const void* pointer) {
  const std::uintptr_t address = to_address(pointer);
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (!devices_[i]->contains(address)) continue;
    const auto range = devices_[i]->find(address);
    if (!range) return {};
    return {MemoryKind::kDevice, static_cast<int>(i), range->first, range->second};
  }
  auto found = pinned_.upper_bound(address);
  if (found == pinned_.begin()) return {};
  --found;
  if (address - found->first >= found->second.size) return {};
  return {MemoryKind::kPinned, 0, found->first, {static_cast<std::int64_t>(found->second.size)}};
}

std::string Simulator::first_uncomputed_read() {
  const std::lock_guard lock(mutex_);
  return first_uncomputed_read_;
}

}  // namespace ebbtide::dryrun
