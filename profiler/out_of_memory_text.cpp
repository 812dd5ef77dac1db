#include "profiler/out_of_memory_text.h"

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "profiler/report_text.h"

namespace ebbtide {
namespace {

// Where torch's text begins to speak of what it counts itself.
constexpr const char* kTorchsNumbers = "Of the allocated memory ";
constexpr std::size_t kOwnersInError = 3;
constexpr std::size_t kMostRows = 40;
constexpr std::size_t kMostFrames = 8;  // of a stack

struct Free {
  Bytes idle;     // held by torch or the arena, used by nobody
  Bytes largest;  // piece, of those or of the device
  std::size_t pieces = 0;
  Bytes all;
};

Bytes free_of(const OutOfMemoryFacts::Segment& segment) {
  Bytes sum;
  for (const Bytes piece : segment.free) sum += piece;
  return sum;
}

Free free_of(const OutOfMemoryFacts& facts) {
  Free free{{}, facts.device_free, facts.device_free.value > 0 ? std::size_t{1} : 0, {}};
  for (const OutOfMemoryFacts::Segment& segment : facts.segments) {
    free.idle += free_of(segment);
    free.pieces += segment.free.size();
    for (const Bytes piece : segment.free) free.largest = std::max(free.largest, piece);
  }
  free.all = free.idle + facts.device_free;
  return free;
}

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

bool is_of_the_program(const std::string& frame) {
  return frame.find("-packages/torch/") == std::string::npos && frame.find("/ebbtide/_") == std::string::npos &&
         frame.find(".so") == std::string::npos;
}

// The innermost lines of the program itself, one below the other; where there are none, of whatever was running.
std::string lines_of(const std::vector<std::string>& stack, const char* indent) {
  std::vector<std::string> shown;
  std::ranges::copy_if(stack, std::back_inserter(shown), is_of_the_program);
  if (shown.empty()) shown = stack;
  if (shown.size() > kMostFrames) shown.resize(kMostFrames);
  std::string text;
  for (const std::string& frame : shown) text.append(indent).append(frame).append("\n");
  return text;
}

std::string owners_of(const OutOfMemoryFacts& facts) {
  if (facts.largest.empty()) return "";
  std::string text = " Largest live blocks:";
  const char* separator = " ";
  for (std::size_t i = 0; i < std::min(facts.largest.size(), kOwnersInError); ++i) {
    text += separator + to_string(facts.largest[i].size) + " (" + facts.largest[i].who + ")";
    separator = ", ";
  }
  return text + ".";
}

// The parts of the device's capacity, in the words of `ebbtide report`.
std::string split_of(const OutOfMemoryFacts& facts) {
  Bytes held, stranded, cached, taken;
  for (const OutOfMemoryFacts::Segment& segment : facts.segments) {
    held += segment.size;
    taken += segment.taken;
    (segment.taken.value > 0 ? stranded : cached) += free_of(segment);
  }
  const Bytes not_torch = facts.device_total - facts.device_free - held;
  return fmt::format(
      "requested {} | rounding {} | stranded {} | cached and fitting {} | not torch {} | free on the device {}\n"
      "  = capacity {}\n",
      to_string(facts.requested), to_string(taken - facts.requested), to_string(stranded), to_string(cached),
      to_string(not_torch), to_string(facts.device_free), to_string(facts.device_total));
}

std::string table_of_owners(const OutOfMemoryFacts& facts) {
  std::string text;
  for (std::size_t i = 0; i < std::min(facts.largest.size(), kMostRows); ++i) {
    text += fmt::format("  {:>11}  {}\n", to_string(facts.largest[i].size), facts.largest[i].who);
    text += lines_of(facts.largest[i].stack, "                 ");
  }
  if (facts.largest.size() > kMostRows) text += fmt::format("  and {} smaller ones\n", facts.largest.size() - kMostRows);
  return text;
}

std::string table_of_segments(const OutOfMemoryFacts& facts) {
  std::vector<OutOfMemoryFacts::Segment> segments = facts.segments;
  std::stable_sort(segments.begin(), segments.end(),
                   [](const auto& a, const auto& b) { return free_of(a) > free_of(b); });
  std::string text = fmt::format("  {:<16}  {:>11}  {:>11}  {:>11}  {:>11}\n", "address", "size", "taken", "free", "largest");
  for (std::size_t i = 0; i < std::min(segments.size(), kMostRows); ++i) {
    const auto& segment = segments[i];
    const auto widest = std::max_element(segment.free.begin(), segment.free.end());
    text += fmt::format("  {:<16}  {:>11}  {:>11}  {:>11}  {:>11}\n", fmt::format("{:#x}", segment.address),
                        to_string(segment.size), to_string(segment.taken), to_string(free_of(segment)),
                        to_string(widest == segment.free.end() ? Bytes{} : *widest));
  }
  if (segments.size() > kMostRows) text += fmt::format("  and {} more\n", segments.size() - kMostRows);
  return text;
}

std::string why_it_does_not_fit(const OutOfMemoryFacts& facts) {
  const Free free = free_of(facts);
  if (free.all < facts.asked) {
    return fmt::format("all that is free is {}: {} less than was asked for", to_string(free.all),
                       to_string(facts.asked - free.all));
  }
  return fmt::format("{} are free, but in {} pieces, the largest of {}", to_string(free.all), free.pieces,
                     to_string(free.largest));
}

// What Ebbtide's own means would have done about it.
std::string what_would_change(const OutOfMemoryFacts& facts) {
  const Bytes free = free_of(facts).all;
  std::string text = "  a plan: ";
  if (facts.plan_height.value > 0) {
    text += fmt::format("is in force, {} high; this request is not one of it\n", to_string(facts.plan_height));
  } else if (free >= facts.asked) {
    text += "puts what comes and goes into one arena without gaps: what is free would have been in one piece\n";
  } else {
    text += "makes nothing smaller that is alive: it would not have helped here\n";
  }
  if (facts.made_in_round.value == 0) return text + "  offload: nothing was made in this iteration that it could move\n";
  const bool helps = free + facts.made_in_round >= facts.asked;
  return text + fmt::format("  offload: {} of what is alive was made in this iteration (activations, mostly); moving it to host "
                            "memory {}\n",
                            to_string(facts.made_in_round), helps ? "would have made room" : "alone would not have made room");
}

}  // namespace

std::string explain_out_of_memory(const std::string& text_of_torch, const OutOfMemoryFacts& facts) {
  std::string text = text_of_torch;
  if (const auto at = text.find(kTorchsNumbers); at != std::string::npos) text.erase(at);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();

  const Free free = free_of(facts);
  text.append(" ").append(numbers_of_torch(facts));
  text += "\nEbbtide: " + to_string(facts.asked) + " asked for" + (facts.asked_in.empty() ? "" : " in " + facts.asked_in) +
          "; the largest free block is " + to_string(free.largest) + "; " + to_string(free.all) + " are free in " +
          std::to_string(free.pieces) + " pieces that do not fit.";
  text += owners_of(facts);
  text += " The arena holds " + to_string(facts.arena) + ", of which " + to_string(facts.arena_live) + " are alive, and gave " +
          to_string(facts.given_back) + " back before this.";
  return text + " What to change: " + advice(facts, free.all) + ".";
}

std::string out_of_memory_report(const std::string& error, const OutOfMemoryFacts& facts) {
  return "ebbtide: out of memory on " + device_name(facts.device) + "\n\n" + error + "\n\nAsked for: " + to_string(facts.asked) +
         (facts.asked_in.empty() ? "" : " in " + facts.asked_in) + "\n" + lines_of(facts.asked_from, "  at ") + "Why it does not fit: " + why_it_does_not_fit(facts) +
         "\n\nWhere the bytes are:\n  " + split_of(facts) + "\nLive blocks, the largest first:\n" + table_of_owners(facts) +
         "\nSegments, most free bytes first:\n" + table_of_segments(facts) + "\nWhat would have changed it:\n" +
         what_would_change(facts) + "\nTo try: " + advice(facts, free_of(facts).all) +
         "\nThe way here: EBBTIDE_TRACE=run.ebb, then ebbtide report run.ebb --oom --html run.html\n";
}

Status write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc | std::ios::binary);
  file << text;
  file.close();
  if (file) return Nothing{};
  return Error{ErrorCode::kSystem, path + ": " + std::strerror(errno)};
}

}  // namespace ebbtide
