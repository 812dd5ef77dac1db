#include "hooks/torch_cuda_out_of_memory.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ebbtide {
namespace {

// Where torch's text begins to speak of what it counts itself.
constexpr const char* kTorchsNumbers = "Of the allocated memory ";

std::string advice(const OutOfMemoryFacts& facts, Bytes free) {
  if (facts.asked > facts.device_total) return "the request alone is larger than the device: make that tensor smaller";
  if (free >= facts.asked) {
    return facts.has_expandable_segments
               ? "enough is free, but in pieces: torch.cuda.empty_cache() before this point, or fewer long-lived tensors "
                 "made between short-lived ones"
               : "enough is free, but in pieces: set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True";
  }
  return "what is alive needs the device: a smaller batch or length, activation checkpointing, or EBBTIDE_OFFLOAD=auto";
}

std::string numbers_of_torch(const OutOfMemoryFacts& facts) {
  return kTorchsNumbers + to_string(facts.allocated) + " is allocated by PyTorch, and " +
         to_string(facts.reserved - facts.allocated) + " is reserved by PyTorch but unallocated.";
}

std::string owners_of(const OutOfMemoryFacts& facts) {
  if (facts.largest.empty()) return "";
  std::string text = " Largest live blocks:";
  const char* separator = " ";
  for (const OutOfMemoryFacts::Owner& owner : facts.largest) {
    text += separator + to_string(owner.size) + " (" + owner.who + ")";
    separator = ", ";
  }
  return text + ".";
}

}  // namespace

std::string explain_out_of_memory(const std::string& text_of_torch, const OutOfMemoryFacts& facts) {
  std::string text = text_of_torch;
  if (const auto at = text.find(kTorchsNumbers); at != std::string::npos) text.erase(at);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();

  const Bytes idle = std::accumulate(facts.idle_blocks.begin(), facts.idle_blocks.end(), Bytes{});
  const auto widest = std::max_element(facts.idle_blocks.begin(), facts.idle_blocks.end());
  const Bytes largest = std::max(facts.device_free, widest == facts.idle_blocks.end() ? Bytes{} : *widest);
  text.append(" ").append(numbers_of_torch(facts));
  text += "\nEbbtide: " + to_string(facts.asked) + " asked for; the largest free block is " +
          to_string(largest) + "; " + to_string(facts.device_free + idle) + " are free in " +
          std::to_string(facts.idle_blocks.size() + (facts.device_free.value > 0 ? 1 : 0)) + " pieces that do not fit.";
  text += owners_of(facts);
  text += " The arena holds " + to_string(facts.arena) + ", of which " + to_string(facts.arena_live) + " are alive, and gave " +
          to_string(facts.given_back) + " back before this.";
  return text + " What to change: " + advice(facts, facts.device_free + idle) + ".";
}

thread_local int OutOfMemoryRelay::Quiet::depth_ = 0;

void OutOfMemoryRelay::attach(Observer observer) {
  bool is_first = false;
  {
    const std::lock_guard lock(lock_);
    is_first = observers_.empty();
    observers_.push_back(std::move(observer));
  }
  if (!is_first) return;
  upstream_.attachOutOfMemoryObserver([this](std::int64_t device, std::size_t allocated, std::size_t total, std::size_t free) {
    if (!Quiet::is_on()) tell(device, allocated, total, free);
  });
}

void OutOfMemoryRelay::tell(std::int64_t device, std::size_t allocated, std::size_t total, std::size_t free) {
  std::vector<Observer> observers;
  {
    const std::lock_guard lock(lock_);
    observers = observers_;
  }
  for (const Observer& observer : observers) observer(device, allocated, total, free);
}

}  // namespace ebbtide
