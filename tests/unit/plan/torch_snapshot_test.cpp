#include "allocator/plan/torch_snapshot.h"

#include <gtest/gtest.h>

#include <tuple>

#include "tests/unit/plan/mutation.h"
#include "tests/unit/plan/snapshot_bytes.h"

namespace ebbtide {
namespace {

namespace s = snapshot;

std::string refusal(const std::string& bytes, std::optional<int> device = std::nullopt) {
  const auto read = read_torch_snapshot(bytes, "m.pickle", device);
  return read.ok() ? "" : read.error().message;
}

std::string row(const SnapshotProblem& read, std::size_t i) {
  const Buffer& buffer = read.named.problem.buffers[i];
  return read.named.ids[i] + " [" + std::to_string(buffer.live[0].birth.value) + "," +
         std::to_string(buffer.live[0].death.value) + ") " + std::to_string(buffer.size.value);
}

TEST(TorchSnapshot, BuffersLiveFromAllocToFreeRequestedAndOlderOnesFromTheBeginning) {
  const auto result = read_torch_snapshot(s::sample(), "m.pickle");
  ASSERT_TRUE(result.ok()) << result.error().message;
  const SnapshotProblem& read = result.value();
  ASSERT_EQ(read.named.ids.size(), 4U);
  EXPECT_EQ(row(read, 0), "0 [0,4) 512");
  EXPECT_EQ(row(read, 1), "before-2000 [0,1) 4096");
  EXPECT_EQ(row(read, 2), "6 [6,7) 1024");
  EXPECT_EQ(row(read, 3), "before-3000 [0,7) 1024");
  EXPECT_EQ(read.named.problem.buffers[0].alignment, Bytes{512});
  EXPECT_EQ(std::tuple(read.device, read.streams), std::tuple(0, std::size_t{2}));
}

TEST(TorchSnapshot, AnAddressGivenOutTwiceEndsTheFirstBuffer) {
  const auto read = read_torch_snapshot(
      s::snapshot("", s::list(s::entry("alloc", 64, 512) + s::entry("alloc", 64, 512))),
      "m.pickle");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(row(read.value(), 0), "0 [0,1) 512");
  EXPECT_EQ(row(read.value(), 1), "1 [1,2) 512");
}

TEST(TorchSnapshot, OneOfSeveralDevicesIsChosenByTheCaller) {
  const std::string both =
      s::snapshot("", s::list(s::entry("alloc", 64, 1)) + s::list(s::entry("alloc", 64, 2000)));
  EXPECT_EQ(refusal(both), "m.pickle: has allocations of devices 0, 1: choose one with --device");
  EXPECT_EQ(refusal(both, 3), "m.pickle: has nothing of device 3, only of 0, 1");
  const auto second = read_torch_snapshot(both, "m.pickle", 1);
  ASSERT_TRUE(second.ok()) << second.error().message;
  EXPECT_EQ(second.value().named.problem.buffers[0].size, Bytes{2048});
}

TEST(TorchSnapshot, SaysAtWhichByteItIsNoSnapshot) {
  EXPECT_EQ(refusal(s::pickle("N")),
            "m.pickle: byte 2: 'segments' is missing: this is no memory snapshot of torch");
  EXPECT_EQ(refusal(s::snapshot("", s::list(s::dictionary("")))),
            "m.pickle: byte 36: action is not a text");
  EXPECT_EQ(refusal(s::snapshot("", s::list(s::entry("alloc", 64, -1)))),
            "m.pickle: byte 36: size -1 is not between 0 and 2^60");
  EXPECT_EQ(refusal(s::snapshot("", "")), "m.pickle: holds no allocations");
}

TEST(TorchSnapshot, NothingInItIsExecuted) {
  // os.system("echo"), as the pickle module would run it.
  EXPECT_EQ(refusal("\x80\x02"
                    "cos\nsystem\n(\x8c\x04"
                    "echotR."),
            "m.pickle: byte 2: holds more than plain data: it would run code, and is not read");
  for (const char code : std::string("cRbiPQo\x81\x82\x83\x84\x92\x93")) {
    EXPECT_NE(refusal(s::pickle(s::text("os") + s::text("system") + code)).find("would run code"),
              std::string::npos)
        << static_cast<int>(code);
  }
}

TEST(TorchSnapshot, BrokenPicklesAreRefusedAtTheirByte) {
  EXPECT_EQ(refusal("hello"), "m.pickle: byte 0: this is no pickle of protocol 2 or later");
  EXPECT_EQ(refusal(""), "m.pickle: byte 0: the file ends early");
  EXPECT_EQ(refusal("\x80\x09."), "m.pickle: byte 0: protocol 9 is not supported, only 2 to 5");
  EXPECT_EQ(refusal(s::pickle("")), "m.pickle: byte 2: the pickle ends in the middle of a value");
  EXPECT_EQ(refusal(s::pickle("](")), "m.pickle: byte 4: the pickle ends in the middle of a value");
  EXPECT_EQ(refusal(s::pickle("e")), "m.pickle: byte 2: a mark is missing here");
  EXPECT_EQ(refusal(s::pickle("h\x05")), "m.pickle: byte 2: memo number 5 was never given");
  EXPECT_EQ(refusal(s::pickle("Na")), "m.pickle: byte 3: a value is missing here");
  EXPECT_EQ(refusal(s::pickle("}(Nu")), "m.pickle: byte 5: a key has no value");
  EXPECT_EQ(refusal(s::pickle("I12\n")),
            "m.pickle: byte 2: instruction 0x49 is unknown or not supported");
}

TEST(TorchSnapshot, ASmallFileDoesNotTakeMuchMemory) {
  // A text and a memo number that claim gigabytes.
  EXPECT_EQ(refusal("\x80\x04\x8D\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"),
            "m.pickle: byte 2: the file ends early");
  EXPECT_EQ(refusal(s::pickle("Nr\xF0\xFF\xFF\x7F")),
            "m.pickle: byte 3: memo number 2147483632 is out of order");
  // One list of many entries, again and again: quadratic in the file's size.
  std::string entries = s::entry("alloc", 64, 1) + "q";
  entries += '\x01';
  for (int i = 0; i < 1000; ++i) entries += "h\x01";
  std::string traces = s::list(entries) + "q";
  traces += '\x02';
  for (int i = 0; i < 1000; ++i) traces += "h\x02";
  EXPECT_NE(refusal(s::snapshot("", traces)).find("more often than any snapshot does"),
            std::string::npos);
}

TEST(TorchSnapshot, AListThatHoldsItselfIsNoSnapshot) {
  const std::string self = std::string("]q") + '\x00' + "h" + '\x00' + "a";
  EXPECT_NE(refusal(s::snapshot(self, "")), "");
}

TEST(TorchSnapshot, AnyBytesAreReadOrRefusedInOneLine) {
  const std::string sample = s::sample();
  mutation::Mutator mutator(3);
  int read_well = 0;
  for (int round = 0; round < 30'000; ++round) {
    const std::string bytes = mutator.mutate(sample);
    const auto read = read_torch_snapshot(bytes, "m.pickle");
    if (read.ok()) {
      ++read_well;
      ASSERT_TRUE(check(read.value().named.problem).ok());
      continue;
    }
    const std::string& message = read.error().message;
    EXPECT_TRUE(message.starts_with("m.pickle: ")) << message;
    EXPECT_EQ(message.find_first_of("\n\r"), std::string::npos) << message;
  }
  EXPECT_GT(read_well, 500);
}

}  // namespace
}  // namespace ebbtide
