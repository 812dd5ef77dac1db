#include "allocator/runtime/plan_file.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <type_traits>
#include <unistd.h>

#include "allocator/base/crc32.h"
#include "allocator/runtime/plan_maker.h"

namespace ebbtide {
namespace {

// Layout, little-endian: magic "EBBPLAN\0", u32 version, u32 crc32 of the rest, then the books as
// written by Writer below: every number is 8 bytes, every list is its length and its elements.
constexpr char kMagic[8] = {'E', 'B', 'B', 'P', 'L', 'A', 'N', '\0'};
constexpr std::size_t kHeader = sizeof(kMagic) + 2 * sizeof(std::uint32_t);
static_assert(std::endian::native == std::endian::little, "plan files are little-endian");

class Writer {
 public:
  void number(std::int64_t value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void size(std::size_t value) { number(static_cast<std::int64_t>(value)); }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reading past the end or a list longer than the file makes it bad; a bad reader answers zeros.
class Reader {
 public:
  Reader(const char* bytes, std::size_t size) : at_(bytes), left_(size) {}

  std::int64_t number() {
    std::int64_t value = 0;
    if (left_ < sizeof(value)) {
      bad_ = true;
      left_ = 0;
      return 0;
    }
    std::memcpy(&value, at_, sizeof(value));
    at_ += sizeof(value);
    left_ -= sizeof(value);
    return value;
  }
  std::uint32_t small() {
    const std::int64_t value = number();
    bad_ = bad_ || value < 0 || value > UINT32_MAX;
    return static_cast<std::uint32_t>(value);
  }
  std::size_t length() {
    const std::int64_t value = number();
    if (value < 0 || static_cast<std::size_t>(value) > left_ / sizeof(std::int64_t)) bad_ = true;
    return bad_ ? 0 : static_cast<std::size_t>(value);
  }
  bool is_bad() const { return bad_; }
  bool is_at_end() const { return left_ == 0; }

 private:
  const char* at_;
  std::size_t left_;
  bool bad_ = false;
};

void write_node(Writer& out, const Node& node) {
  out.number(node.root.value);
  out.size(node.sizes.size());
  for (const Bytes size : node.sizes) out.number(size.value);
  out.number(node.slot.value);
  out.number(node.death.value);
  out.number(node.missed);
  out.number(node.seen);
  out.number(node.constant_hint ? 1 : 0);
  out.number(node.unplanned ? 1 : 0);
  out.number(node.offset.value);
}

Node read_node(Reader& in) {
  Node node;
  node.root.value = in.small();
  node.sizes.resize(in.length());
  for (Bytes& size : node.sizes) size.value = in.number();
  node.slot.value = in.number();
  node.death.value = in.number();
  node.missed = static_cast<int>(in.number());
  node.seen = in.small();
  node.constant_hint = in.number() != 0;
  node.unplanned = in.number() != 0;
  node.offset.value = in.number();
  return node;
}

void write_extents(Writer& out, const Extents& extents) {
  out.size(extents.size());
  for (const std::int64_t extent : extents) out.number(extent);
}

Extents read_extents(Reader& in) {
  Extents extents(in.length());
  for (std::int64_t& extent : extents) extent = in.number();
  return extents;
}

void write_program(Writer& out, const Program& program) {
  out.number(program.id);
  out.number(static_cast<std::int64_t>(program.kind));
  out.number(program.previous.bits);
  out.number(program.source);
  out.size(program.shapes);
  for (const Extents& input : program.inputs) write_extents(out, input);
  out.size(program.nodes.size());
  for (const Node& node : program.nodes) write_node(out, node);
  out.size(program.incoming.size());
  for (const Incoming& incoming : program.incoming) {
    out.number(incoming.root.value);
    out.number(incoming.size.value);
    out.number(incoming.end.value);
  }
  out.size(program.order.size());
  for (const std::uint32_t index : program.order) out.number(index);
  out.number(program.height.value);
  out.number(program.lower_bound.value);
  out.number(program.planned ? 1 : 0);
  out.number(program.learnt);
}

Program read_program(Reader& in) {
  Program program;
  program.id = in.small();
  program.kind = static_cast<RoundKind>(in.number());
  program.previous.bits = static_cast<std::uint8_t>(in.number());
  program.source = in.small();
  program.inputs.resize(in.length());
  program.shapes = program.inputs.size();
  for (Extents& input : program.inputs) input = read_extents(in);
  program.nodes.resize(in.length());
  for (Node& node : program.nodes) node = read_node(in);
  program.incoming.resize(in.length());
  for (Incoming& incoming : program.incoming) {
    incoming.root.value = in.small();
    incoming.size.value = in.number();
    incoming.end.value = in.number();
  }
  program.order.resize(in.length());
  for (std::uint32_t& index : program.order) index = in.small();
  program.height.value = in.number();
  program.lower_bound.value = in.number();
  program.planned = in.number() != 0;
  program.learnt = in.small();
  return program;
}

Error bad(const std::string& reason) { return {ErrorCode::kBadPlan, reason}; }

// Sizes and ticks that later arithmetic relies on.
bool is_sound(const Program& program) {
  if (program.shapes < 1 || program.shapes > kMaxShapes) return false;
  for (const Extents& input : program.inputs) {
    if (!std::all_of(input.begin(), input.end(), is_extent)) return false;
  }
  for (const Node& node : program.nodes) {
    const bool sizes_fit = node.sizes.size() == program.shapes;
    const bool bounded = node.slot.value >= 0 && node.slot.value < (std::int64_t{1} << 50) &&
                         node.offset.value >= 0 && node.offset.value < (std::int64_t{1} << 50);
    const bool counts = node.missed >= 0 && node.missed < (1 << 30);
    if (!sizes_fit || !bounded || !counts) return false;
    for (const Bytes size : node.sizes) {
      if (size.value < 0 || size > node.slot) return false;
    }
  }
  for (const Incoming& incoming : program.incoming) {
    if (incoming.size.value <= 0 || incoming.size.value >= (std::int64_t{1} << 50) || incoming.end.value < 0) return false;
  }
  for (const std::uint32_t index : program.order) {
    if (index >= program.order.size()) return false;
  }
  return program.kind <= RoundKind::kOptimizer &&
         (!program.planned || program.order.size() >= program.nodes.size());
}

}  // namespace

std::string PlanFile::encode(const PlanBooks& books) {
  Writer out;
  out.size(books.size());
  for (const auto& [device, book] : books) {
    out.number(device);
    out.number(book.height.value);
    out.number(book.last_root.value);
    out.number(book.next_program_);
    out.size(book.homes.size());
    for (const auto& [root, home] : book.homes) {
      out.number(root.value);
      out.number(home.offset.value);
      out.number(home.size.value);
    }
    out.size(book.permanent_.size());
    for (const RootId root : book.permanent_) out.number(root.value);
    out.size(book.programs.size());
    for (const Program& program : book.programs) write_program(out, program);
  }
  const std::string body = out.take();
  std::string file(kMagic, sizeof(kMagic));
  const std::uint32_t version = kVersion;
  const std::uint32_t sum = crc32(body.data(), body.size());
  file.append(reinterpret_cast<const char*>(&version), sizeof(version));
  file.append(reinterpret_cast<const char*>(&sum), sizeof(sum));
  return file + body;
}

Result<PlanBooks> PlanFile::decode(const std::string& bytes) {
  if (bytes.size() < kHeader || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    return bad("is not a plan file");
  }
  std::uint32_t version = 0;
  std::uint32_t sum = 0;
  std::memcpy(&version, bytes.data() + sizeof(kMagic), sizeof(version));
  std::memcpy(&sum, bytes.data() + sizeof(kMagic) + sizeof(version), sizeof(sum));
  if (version != kVersion) {
    return bad("has version " + std::to_string(version) + "; this build reads version " + std::to_string(kVersion));
  }
  if (sum != crc32(bytes.data() + kHeader, bytes.size() - kHeader)) return bad("is damaged or cut off");
  Reader in(bytes.data() + kHeader, bytes.size() - kHeader);
  PlanBooks books;
  const std::size_t count = in.length();
  for (std::size_t b = 0; b < count && !in.is_bad(); ++b) {
    ProgramBook& book = books[static_cast<int>(in.number())];
    book.height.value = in.number();
    book.last_root.value = in.small();
    book.next_program_ = in.small();
    for (std::size_t n = in.length(); n > 0; --n) {
      const RootId root{in.small()};
      book.homes[root].offset.value = in.number();
      book.homes[root].size.value = in.number();
    }
    for (std::size_t n = in.length(); n > 0; --n) book.permanent_.insert(RootId{in.small()});
    book.programs.resize(in.length());
    for (Program& program : book.programs) {
      program = read_program(in);
      if (in.is_bad() || !is_sound(program)) return bad("does not hold together");
      program.rebuild_classes();
      if (!program.is_valid()) return bad("does not hold together");
    }
    if (in.is_bad()) break;
    if (const Status valid = validate_plans(book); !valid.ok()) return bad(valid.error().message);
  }
  if (in.is_bad() || !in.is_at_end()) return bad("does not hold together");
  return books;
}

Result<PlanBooks> PlanFile::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return bad("plan " + path + " cannot be read");
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  Result<PlanBooks> books = decode(bytes);
  if (!books.ok()) return bad("plan " + path + " " + books.error().message);
  return books;
}

Status PlanFile::save(const std::string& path, const PlanBooks& books) {
  const std::string part = path + ".part" + std::to_string(::getpid());
  const std::string bytes = encode(books);
  std::ofstream file(part, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
    std::remove(part.c_str());
    return Error{ErrorCode::kSystem, "plan " + path + " cannot be written"};
  }
  return Nothing{};
}

}  // namespace ebbtide
