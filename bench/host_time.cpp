// Host time of one allocate + free pair through torch's CUDA allocator: a loop over a repeating
// pattern of sizes, with an iteration's mark after each pattern. Started by host_time.py, which
// sets the allocator up through the environment and reads what is printed here.
//
// Usage: host_time <case> <live blocks> <requests per pattern> <patterns per repeat> <repeats>
//                  [<adaptor library>]
// Cases: repeating (every pattern is the same), unique (no two are), other-stream (the same, but
// not on the stream that is planned). Prints <upstream|ours> <seconds per pair>, a line per repeat;
// with an adaptor, torch's own allocator (upstream) and ours take turns in this one process.
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

namespace {

namespace native = c10::cuda::CUDACachingAllocator;

constexpr std::size_t kMiB = 1 << 20;
constexpr std::size_t kSizes = 64;
constexpr int kWarmups = 12;  // patterns before anything is timed: observed, planned, served
constexpr std::chrono::milliseconds kPatience{500};

struct Engine {
  int (*step)() = [] { return 0; };
  int (*wait_for_plans)() = [] { return 0; };
};

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

// `live` blocks stay alive: every further request first frees the oldest or the newest of them in
// turn.
void run_pattern(c10::Allocator& allocator, const std::vector<std::size_t>& sizes,
                 std::size_t requests, std::vector<c10::DataPtr>& blocks) {
  const std::size_t live = blocks.size();
  std::size_t oldest = 0;
  for (std::size_t i = 0; i < requests; ++i) {
    const bool is_newest = i % 2 == 1 && i > live;
    const std::size_t slot = is_newest ? (oldest + live - 1) % live : oldest;
    if (!is_newest) oldest = (oldest + 1) % live;
    blocks[slot].clear();
    blocks[slot] = allocator.allocate(sizes[i % sizes.size()]);
  }
  for (c10::DataPtr& block : blocks) block.clear();
}

struct Settings {
  bool is_repeating;
  std::size_t live, requests;
  int patterns, repeats;
};

double seconds_per_pair(c10::Allocator& allocator, const Engine& engine, const Settings& settings) {
  static std::uint32_t seed = 1;
  std::vector<c10::DataPtr> blocks(settings.live);
  std::vector<std::vector<std::size_t>> sizes;
  for (int i = 0; i < settings.patterns; ++i) {
    sizes.push_back(make_sizes(settings.is_repeating ? 0 : ++seed));
  }
  const auto begin = std::chrono::steady_clock::now();
  for (const std::vector<std::size_t>& pattern : sizes) {
    run_pattern(allocator, pattern, settings.requests, blocks);
    engine.step();
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  return time.count() / (static_cast<double>(settings.requests) * settings.patterns);
}

// Until nothing is observed for the first time any more, and no plan is waited for.
void warm_up(c10::Allocator& allocator, const Engine& engine, Settings settings) {
  settings.patterns = 1;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kWarmups || std::chrono::steady_clock::now() - begin < kPatience; ++i) {
    seconds_per_pair(allocator, engine, settings);
    engine.wait_for_plans();
  }
}

template <typename Function>
Function* symbol(void* library, const char* name) {
  void* found = ::dlsym(library, name);
  if (found == nullptr) {
    std::fprintf(stderr, "host_time: %s\n", ::dlerror());
    std::exit(2);
  }
  return reinterpret_cast<Function*>(found);
}

Engine install(const char* path) {
  void* adaptor = ::dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (adaptor == nullptr) {
    std::fprintf(stderr, "host_time: %s\n", ::dlerror());
    std::exit(2);
  }
  if (symbol<int()>(adaptor, "ebbtide_torch_cuda_install")() != 0) {
    std::fprintf(stderr, "host_time: the adaptor could not be installed\n");
    std::exit(2);
  }
  return {symbol<int()>(adaptor, "ebbtide_step"), symbol<int()>(adaptor, "ebbtide_wait_for_plans")};
}

void measure(const char* name, c10::Allocator& allocator, const Engine& engine,
             const Settings& settings) {
  std::printf("%s %.4g\n", name, seconds_per_pair(allocator, engine, settings));
}

void run(const Settings& settings, const Engine& engine, native::CUDAAllocator& upstream,
         bool on_other_stream) {
  native::CUDAAllocator& ours = *native::get();
  const bool has_ours = &ours != &upstream;
  engine.step();
  // The first stream of an iteration is the one that is planned.
  if (on_other_stream) ours.allocate(2 * kMiB);
  if (on_other_stream) c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool());
  warm_up(upstream, {}, settings);
  if (has_ours) warm_up(ours, engine, settings);
  for (int i = 0; i < settings.repeats; ++i) {
    measure("upstream", upstream, {}, settings);
    if (has_ours) measure("ours", ours, engine, settings);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: host_time case live requests patterns repeats [adaptor]\n");
    return 2;
  }
  const Settings settings{std::strcmp(argv[1], "unique") != 0, std::strtoul(argv[2], nullptr, 10),
                          std::strtoul(argv[3], nullptr, 10), std::atoi(argv[4]),
                          std::atoi(argv[5])};
  native::CUDAAllocator& upstream = *native::get();
  const Engine engine = argc > 6 ? install(argv[6]) : Engine{};
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  run(settings, engine, upstream, std::strcmp(argv[1], "other-stream") == 0);
  return 0;
}
