#include "profiler/owner_names.h"

#include <cstring>

namespace ebbtide {
namespace {

// The room for text in a record: address, bytes and stream.
struct Piece {
  std::uint64_t words[3];
};

EventRecord record_of(std::uint32_t number, std::string_view piece) {
  Piece packed{};
  std::memcpy(&packed, piece.data(), piece.size());
  EventRecord event;
  event.action = Action::kName;
  event.thread = number;
  event.device = kNoDevice;
  event.detail = static_cast<std::uint8_t>(piece.size());
  event.address = packed.words[0];
  std::memcpy(&event.bytes, &packed.words[1], sizeof event.bytes);
  event.stream = packed.words[2];
  return event;
}

}  // namespace

std::uint32_t OwnerNames::add(EventSink& sink, std::string_view text) {
  const std::lock_guard guard(lock_);
  const std::uint32_t number = ++count_;
  text = text.substr(0, kMostText);
  do {
    const std::string_view piece = text.substr(0, sizeof(Piece));
    sink.record(record_of(number, piece));
    text.remove_prefix(piece.size());
  } while (!text.empty());
  return number;
}

}  // namespace ebbtide
