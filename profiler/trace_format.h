// The trace file: how observed events lie on disk. Writer and reader share only this.
//
// Note [Trace format], version 1. All numbers are in the writer's byte order.
//
//   offset 0   FileHeader   24 B   magic, byte order mark, version, record size, CRC of these
//          24  Frame        32 B   mark "EBLK": `count` records follow
//              EventRecord  48 B   x count, raw, as in allocator/base/event.h
//              Frame, records, ...
//              Frame        32 B   mark "EEND": the totals; nothing follows
//
// A frame is checked by its own CRC and its records by the payload CRC, so a file that was cut or
// damaged is good up to the last whole block. Each frame also counts the records before it, which
// notices a missing block, and the events lost so far, so that a cut file still knows about them.
// EventRecord is versioned with the file: a change of its fields is a new version; a new Action is
// not, readers pass over those they do not know.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "allocator/base/event.h"

namespace ebbtide {

inline constexpr std::array<char, 8> kTraceMagic{'E', 'B', 'B', 'T', 'R', 'A', 'C', 'E'};
inline constexpr std::uint32_t kTraceByteOrder = 0x01020304;
inline constexpr std::uint32_t kTraceByteOrderSwapped = 0x04030201;
inline constexpr std::uint32_t kTraceVersion = 1;
inline constexpr std::uint32_t kBlockMark = 0x4B4C4245;  // "EBLK" on a little-endian machine
inline constexpr std::uint32_t kEndMark = 0x444E4545;    // "EEND"
inline constexpr std::size_t kMaxBlockRecords = 4096;    // bounds what a reader must hold

struct FileHeader {
  std::array<char, 8> magic = kTraceMagic;
  std::uint32_t byte_order = kTraceByteOrder;
  std::uint32_t version = kTraceVersion;
  std::uint32_t record_size = sizeof(EventRecord);
  std::uint32_t crc = 0;  // of all fields before it
};
static_assert(sizeof(FileHeader) == 24 && std::is_trivially_copyable_v<FileHeader>);

struct Frame {
  std::uint32_t mark = kBlockMark;
  std::uint32_t count = 0;           // records that follow; 0 in the end frame
  std::uint64_t records_before = 0;  // in all earlier blocks; in the end frame the total
  std::uint64_t lost = 0;            // events dropped so far; in the end frame the total
  std::uint32_t payload_crc = 0;     // of the records that follow
  std::uint32_t crc = 0;             // of all fields before it
};
static_assert(sizeof(Frame) == 32 && std::is_trivially_copyable_v<Frame>);

// Both with their checksums filled in. Requires: records.size() <= kMaxBlockRecords.
FileHeader make_file_header();
Frame make_block_frame(std::span<const EventRecord> records, std::uint64_t records_before,
                       std::uint64_t lost);
Frame make_end_frame(std::uint64_t records, std::uint64_t lost);

// Whether the header's, the frame's own checksum is right.
bool is_intact(const FileHeader& header);
bool is_intact(const Frame& frame);

}  // namespace ebbtide
