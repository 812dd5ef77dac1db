#include "profiler/trace_reader.h"

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "allocator/base/crc32.h"

namespace ebbtide {
namespace {

Error bad_trace(std::string message) { return {ErrorCode::kBadTrace, std::move(message)}; }

// Judged from what was read, `size` bytes, so that a cut header is told from a foreign file.
Status check_magic(const FileHeader& header, std::size_t size, const std::string& path) {
  if (size == 0) return bad_trace(fmt::format("{} is empty, not an Ebbtide trace", path));
  const std::size_t comparable = std::min(size, header.magic.size());
  if (std::memcmp(header.magic.data(), kTraceMagic.data(), comparable) != 0) {
    return bad_trace(fmt::format("{} is not an Ebbtide trace", path));
  }
  if (size < sizeof header) {
    return bad_trace(fmt::format("{} ends inside the header of a trace", path));
  }
  return Nothing{};
}

}  // namespace

TraceReader::TraceReader(File file) : file_(std::move(file)) { block_.reserve(kMaxBlockRecords); }

Result<TraceReader> TraceReader::open(const std::string& path) {
  File file(std::fopen(path.c_str(), "rbe"));
  if (file == nullptr) {
    return bad_trace(fmt::format("cannot open trace {}: {}", path, strerror(errno)));
  }
  if (const Status checked = check_header(file.get(), path); !checked) return checked.error();
  return TraceReader(std::move(file));
}

Status TraceReader::check_header(std::FILE* file, const std::string& path) {
  FileHeader header;
  header.magic = {};
  const std::size_t size = std::fread(&header, 1, sizeof header, file);
  if (std::ferror(file) != 0) {
    return bad_trace(fmt::format("cannot read trace {}: {}", path, strerror(errno)));
  }
  if (const Status checked = check_magic(header, size, path); !checked) return checked;
  if (header.byte_order == kTraceByteOrderSwapped) {
    return bad_trace(fmt::format("{} was written on a machine of the other byte order", path));
  }
  if (header.version != kTraceVersion) {
    return bad_trace(fmt::format("unknown version {} of {}; this build reads {}", header.version,
                                 path, kTraceVersion));
  }
  if (header.byte_order != kTraceByteOrder || header.record_size != sizeof(EventRecord) ||
      !is_intact(header)) {
    return bad_trace(fmt::format("the header of trace {} is damaged", path));
  }
  return Nothing{};
}

std::span<const EventRecord> TraceReader::next() {
  if (end_ != TraceEnd::kNotReached) return {};
  Frame frame;
  if (!read_frame(frame)) return {};
  if (frame.mark == kEndMark) {
    finish(frame);
    return {};
  }
  if (!read_records(frame)) return {};
  records_ += frame.count;
  lost_ = frame.lost;
  return block_;
}

bool TraceReader::read_frame(Frame& frame) {
  if (std::fread(&frame, sizeof frame, 1, file_.get()) != 1) {
    stop_short("between two blocks");
    return false;
  }
  const bool is_block = frame.mark == kBlockMark && frame.count > 0;
  const bool is_end = frame.mark == kEndMark && frame.count == 0;
  if (!is_intact(frame) || !(is_block || is_end) || frame.count > kMaxBlockRecords) {
    stop(TraceEnd::kDamaged, fmt::format("damaged after {} events", records_));
    return false;
  }
  if (frame.records_before != records_) {
    stop(TraceEnd::kDamaged,
         fmt::format("{} events, where {} belong", records_, frame.records_before));
    return false;
  }
  return true;
}

bool TraceReader::read_records(const Frame& frame) {
  block_.resize(frame.count);
  if (std::fread(block_.data(), sizeof(EventRecord), frame.count, file_.get()) != frame.count) {
    stop_short("inside a block");
    return false;
  }
  if (crc32(block_.data(), frame.count * sizeof(EventRecord)) != frame.payload_crc) {
    stop(TraceEnd::kDamaged, fmt::format("damaged after {} events", records_));
    return false;
  }
  return true;
}

void TraceReader::finish(const Frame& frame) {
  lost_ = frame.lost;
  if (std::fgetc(file_.get()) != EOF) {
    stop(TraceEnd::kDamaged, "more follows after the end");
  } else {
    end_ = TraceEnd::kComplete;
  }
}

// A read came back short: the file ends here, or the medium failed.
void TraceReader::stop_short(const char* where) {
  if (std::ferror(file_.get()) != 0) {
    stop(TraceEnd::kDamaged,
         fmt::format("cannot be read after {} events: {}", records_, strerror(errno)));
  } else {
    stop(TraceEnd::kTruncated, fmt::format("ends {} after {} events", where, records_));
  }
}

void TraceReader::stop(TraceEnd end, std::string damage) {
  end_ = end;
  damage_ = std::move(damage);
}

}  // namespace ebbtide
