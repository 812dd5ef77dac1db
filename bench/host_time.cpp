// Host time of one allocate + free pair on CUDA: torch's own allocator and Ebbtide take turns in one process, a round
// each, so that what else the machine does meets both. Started by host_time.py, which sets torch and Ebbtide up through
// the environment and reads what is printed here.
//
// Usage: host_time <case> <entry> <threads> <live blocks> <requests per round> <rounds> <adaptor library>
// Cases:   repeating     every round is the same; each thread on a device of its own
//          unique        no two rounds are; all threads on one device and stream
//          other-stream  repeating, not on the stream that is planned; each thread on a stream of its own
//          no-marks      repeating, and nothing ever says where an iteration begins; one device and stream
// Entries: allocator     c10::Allocator::allocate, as C++ programs call it
//          empty         at::empty, which is torch.empty without Python
// A third one takes turns, too, which does nothing: what it takes is torch's dispatcher and the loop, the least that any
// allocator can come to.
// As a library (host_time_python.py) it lends Python the same three to take turns with.
// Prints the seconds of every round, a line for each: <torch's> <Ebbtide's> <nothing's>.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hooks/torch_cuda_forwarder.h"

namespace {

namespace native = c10::cuda::CUDACachingAllocator;

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kSizes = 64;
constexpr int kWarmups = 40;  // rounds before anything is timed: observed, planned, served, or left alone
constexpr std::chrono::milliseconds kPatience{500};

// Hands out one address again and again, and forgets what comes back.
class Nothing final : public ebbtide::CudaForwarder {
 public:
  using CudaForwarder::CudaForwarder;

  c10::DataPtr allocate(std::size_t) override { return {this, this, &forget, c10::Device(c10::DeviceType::CUDA, device)}; }
  c10::DeleterFnPtr raw_deleter() const override { return &forget; }

  static thread_local c10::DeviceIndex device;

 private:
  static void forget(void*) {}
};
thread_local c10::DeviceIndex Nothing::device = 0;

struct Settings {
  std::string pattern, entry;
  int threads;
  std::size_t live, requests;
  int rounds;

  bool has_own_devices() const { return pattern == "repeating"; }
  bool has_own_streams() const { return pattern == "other-stream"; }
  bool has_marks() const { return pattern != "no-marks"; }
};

struct Engine {
  int (*step)();
  int (*wait_for_plans)();
};

[[noreturn]] void fail(const char* why) {
  std::fprintf(stderr, "host_time: %s\n", why);
  std::exit(2);
}

// Sizes of 2 to 64 MiB, spread evenly over the magnitudes.
std::vector<std::size_t> make_sizes(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::size_t> steps(0, 5 * 16 - 1);
  std::vector<std::size_t> sizes(kSizes);
  for (std::size_t& size : sizes) {
    const std::size_t step = steps(random);
    size = (2 * kMiB << (step / 16)) * (16 + step % 16) / 16;
  }
  return sizes;
}

// `live` blocks stay alive: every further request first frees the oldest or the newest of them in turn.
template <typename Block, typename Allocate>
void run_round(const std::vector<std::size_t>& sizes, const Settings& settings, Allocate allocate) {
  std::vector<Block> blocks(settings.live);
  std::size_t oldest = 0;
  for (std::size_t i = 0; i < settings.requests; ++i) {
    const bool is_newest = i % 2 == 1 && i > settings.live;
    const std::size_t slot = is_newest ? (oldest + settings.live - 1) % settings.live : oldest;
    if (!is_newest) oldest = (oldest + 1) % settings.live;
    blocks[slot] = Block();
    blocks[slot] = allocate(sizes[i % sizes.size()]);
  }
}

void run_round(native::CUDAAllocator& allocator, const std::vector<std::size_t>& sizes, const Settings& settings) {
  if (settings.entry == "allocator") {
    run_round<c10::DataPtr>(sizes, settings, [&](std::size_t size) { return allocator.allocate(size); });
    return;
  }
  const at::TensorOptions bytes = at::TensorOptions().dtype(at::kByte).device(at::kCUDA);
  run_round<at::Tensor>(sizes, settings,
                        [&](std::size_t size) { return at::empty({static_cast<std::int64_t>(size)}, bytes); });
}

// Threads that each run a round at the same time, again and again.
class Team {
 public:
  explicit Team(const Settings& settings)
      : settings_(settings), begin_(settings.threads + 1), end_(settings.threads + 1) {
    for (int i = 0; i < settings.threads; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~Team() {
    allocator_ = nullptr;
    begin_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
  }

  // Seconds that the slowest of them took.
  double run(native::CUDAAllocator& allocator, std::uint32_t seed) {
    sizes_ = make_sizes(seed);
    allocator_ = &allocator;
    native::allocator.store(&allocator);  // at::empty asks there
    begin_.arrive_and_wait();
    end_.arrive_and_wait();
    return *std::max_element(seconds_.begin(), seconds_.end());
  }

 private:
  void work(int number) {
    Nothing::device = static_cast<c10::DeviceIndex>(settings_.has_own_devices() ? number : 0);
    c10::cuda::set_device(Nothing::device);
    if (settings_.has_own_streams()) c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool());
    for (;;) {
      begin_.arrive_and_wait();
      if (allocator_ == nullptr) return;
      const auto begin = std::chrono::steady_clock::now();
      run_round(*allocator_, sizes_, settings_);
      seconds_[static_cast<std::size_t>(number)] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      end_.arrive_and_wait();
    }
  }

  const Settings& settings_;
  std::barrier<> begin_, end_;
  native::CUDAAllocator* allocator_ = nullptr;
  std::vector<std::size_t> sizes_;
  std::vector<double> seconds_ = std::vector<double>(static_cast<std::size_t>(settings_.threads));  // by thread
  std::vector<std::thread> threads_;
};

template <typename Function>
Function* symbol(void* library, const char* name) {
  void* found = ::dlsym(library, name);
  if (found == nullptr) fail(::dlerror());
  return reinterpret_cast<Function*>(found);
}

Engine install(const char* path) {
  void* adaptor = ::dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (adaptor == nullptr) fail(::dlerror());
  if (symbol<int()>(adaptor, "ebbtide_torch_cuda_install")() != 0) fail("the adaptor could not be installed");
  return {symbol<int()>(adaptor, "ebbtide_step"), symbol<int()>(adaptor, "ebbtide_wait_for_plans")};
}

// The first stream of an iteration is the one that is planned.
void take_home(const Settings& settings, const Engine& engine, native::CUDAAllocator& ours) {
  engine.step();
  for (int device = 0; device < (settings.has_own_devices() ? settings.threads : 1); ++device) {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    ours.allocate(2 * kMiB);
  }
  c10::cuda::set_device(0);
}

void run(const Settings& settings, const Engine& engine, native::CUDAAllocator& upstream, native::CUDAAllocator& ours) {
  if (settings.has_marks()) take_home(settings, engine, ours);
  Team team(settings);
  Nothing nothing(upstream);
  std::uint32_t seed = 0;
  const auto round = [&](native::CUDAAllocator& allocator) {
    const double seconds = team.run(allocator, settings.pattern == "unique" ? ++seed : 0);
    if (settings.has_marks() && &allocator == &ours) engine.step();
    return seconds;
  };
  // Until nothing is observed for the first time any more, and no plan is waited for.
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kWarmups || std::chrono::steady_clock::now() - begin < kPatience; ++i) {
    round(upstream);
    round(ours);
    engine.wait_for_plans();
  }
  for (int i = 0; i < settings.rounds; ++i) {
    const double theirs = round(upstream);
    const double own = round(ours);
    std::printf("%.9f %.9f %.9f\n", theirs, own, round(nothing));
  }
}

native::CUDAAllocator* lent[3];  // to Python
Engine engine_of_ours;

}  // namespace

extern "C" {
void host_time_install(const char* adaptor) {
  lent[0] = native::get();
  engine_of_ours = install(adaptor);
  lent[1] = native::get();
  lent[2] = new Nothing(*lent[0]);
}
void host_time_use(int which) { native::allocator.store(lent[which]); }
void host_time_step() { engine_of_ours.step(); }
void host_time_wait_for_plans() { engine_of_ours.wait_for_plans(); }
// Returns how many there are; `sizes` may be null.
int host_time_sizes(std::size_t* sizes) {
  const std::vector<std::size_t> made = make_sizes(0);
  if (sizes != nullptr) std::copy(made.begin(), made.end(), sizes);
  return static_cast<int>(made.size());
}
}

int main(int argc, char** argv) {
  if (argc != 8) fail("usage: host_time case entry threads live requests rounds adaptor");
  const Settings settings{argv[1],
                          argv[2],
                          std::atoi(argv[3]),
                          std::strtoul(argv[4], nullptr, 10),
                          std::strtoul(argv[5], nullptr, 10),
                          std::atoi(argv[6])};
  native::CUDAAllocator& upstream = *native::get();
  const Engine engine = install(argv[7]);
  native::CUDAAllocator& ours = *native::get();
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  run(settings, engine, upstream, ours);
  return 0;
}
