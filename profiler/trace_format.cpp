#include "profiler/trace_format.h"

#include "allocator/base/check.h"
#include "allocator/base/crc32.h"

namespace ebbtide {

FileHeader make_file_header() {
  FileHeader header;
  header.crc = crc32(&header, offsetof(FileHeader, crc));
  return header;
}

Frame make_block_frame(std::span<const EventRecord> records, std::uint64_t records_before,
                       std::uint64_t lost) {
  EBBTIDE_CHECK_OP(records.size(), <=, kMaxBlockRecords);
  Frame frame;
  frame.count = static_cast<std::uint32_t>(records.size());
  frame.records_before = records_before;
  frame.lost = lost;
  frame.payload_crc = crc32(records.data(), records.size_bytes());
  frame.crc = crc32(&frame, offsetof(Frame, crc));
  return frame;
}

Frame make_end_frame(std::uint64_t records, std::uint64_t lost) {
  Frame frame;
  frame.mark = kEndMark;
  frame.records_before = records;
  frame.lost = lost;
  frame.crc = crc32(&frame, offsetof(Frame, crc));
  return frame;
}

bool is_intact(const FileHeader& header) {
  return header.crc == crc32(&header, offsetof(FileHeader, crc));
}

bool is_intact(const Frame& frame) { return frame.crc == crc32(&frame, offsetof(Frame, crc)); }

}  // namespace ebbtide
