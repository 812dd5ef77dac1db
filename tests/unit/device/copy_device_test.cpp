// What every CopyDevice must do, asked of those that a machine without a GPU has.
#include "allocator/device/copy_device.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "allocator/device/cuda_copy_device.h"
#include "allocator/device/host_copy_device.h"
#include "allocator/device/memory_node.h"
#include "tests/fakes/fake_copy_device.h"

namespace ebbtide {
namespace {

constexpr std::size_t kSize = 1 << 16;

template <typename Device>
class CopyDeviceTest : public testing::Test {
 protected:
  CopyDeviceTest() : source_(kSize), middle_(kSize), target_(kSize) {
    std::iota(source_.begin(), source_.end(), char{0});
    EXPECT_TRUE(device_.pin(middle_.data(), Bytes{kSize}).ok());
    first_ = device_.create_stream().value();
    second_ = device_.create_stream().value();
    for (EventId& event : events_) event = device_.create_event().value();
  }
  ~CopyDeviceTest() override {
    for (const EventId event : events_) device_.destroy_event(event);
    device_.destroy_stream(first_);
    device_.destroy_stream(second_);
    device_.unpin(middle_.data());
  }
  void copy(std::vector<char>& to, const std::vector<char>& from, StreamId stream) {
    ASSERT_TRUE(device_.copy(to.data(), from.data(), Bytes{kSize}, stream).ok());
  }

  Device device_;
  StreamId first_, second_;
  std::array<EventId, 3> events_;
  std::vector<char> source_, middle_, target_;
};

using Devices = testing::Types<HostCopyDevice, fakes::FakeCopyDevice>;
TYPED_TEST_SUITE(CopyDeviceTest, Devices);

TYPED_TEST(CopyDeviceTest, AStreamCarriesOutItsCopiesInOrder) {
  this->copy(this->middle_, this->source_, this->first_);
  this->copy(this->target_, this->middle_, this->first_);
  ASSERT_TRUE(this->device_.synchronize(this->first_).ok());
  EXPECT_EQ(this->target_, this->source_);
}

TYPED_TEST(CopyDeviceTest, AnEventOrdersTwoStreams) {
  this->copy(this->middle_, this->source_, this->first_);
  ASSERT_TRUE(this->device_.record(this->events_[0], this->first_).ok());
  ASSERT_TRUE(this->device_.wait(this->second_, this->events_[0]).ok());
  this->copy(this->target_, this->middle_, this->second_);
  ASSERT_TRUE(this->device_.synchronize(this->second_).ok());
  EXPECT_EQ(this->target_, this->source_);
}

TYPED_TEST(CopyDeviceTest, AWaitKeepsThePlaceItWasGivenWhenTheEventIsRecordedAgain) {
  const EventId event = this->events_[0];
  this->copy(this->middle_, this->source_, this->first_);
  ASSERT_TRUE(this->device_.record(event, this->first_).ok());
  ASSERT_TRUE(this->device_.wait(this->second_, event).ok());
  // Recorded behind the wait: if the wait took the new place, both streams would stand still.
  ASSERT_TRUE(this->device_.record(event, this->second_).ok());
  this->copy(this->target_, this->middle_, this->second_);
  ASSERT_TRUE(this->device_.synchronize(this->second_).ok());
  EXPECT_EQ(this->target_, this->source_);
}

TYPED_TEST(CopyDeviceTest, AnEventThatWasNeverRecordedHoldsNothingBack) {
  EXPECT_TRUE(this->device_.is_done(this->events_[0]));
  ASSERT_TRUE(this->device_.wait(this->first_, this->events_[0]).ok());
  this->copy(this->middle_, this->source_, this->first_);
  ASSERT_TRUE(this->device_.synchronize(this->first_).ok());
  EXPECT_EQ(this->middle_, this->source_);
}

TYPED_TEST(CopyDeviceTest, TimeIsKnownWhenBothEventsAreDone) {
  EXPECT_FALSE(this->device_.elapsed_ns(this->events_[0], this->events_[1]).has_value());
  ASSERT_TRUE(this->device_.record(this->events_[0], this->first_).ok());
  this->copy(this->middle_, this->source_, this->first_);
  ASSERT_TRUE(this->device_.record(this->events_[1], this->first_).ok());
  ASSERT_TRUE(this->device_.synchronize(this->first_).ok());
  ASSERT_TRUE(this->device_.is_done(this->events_[1]));
  const auto elapsed = this->device_.elapsed_ns(this->events_[0], this->events_[1]);
  ASSERT_TRUE(elapsed.has_value());
  EXPECT_GT(*elapsed, 0);
}

TEST(HostCopyDevice, TheCallerIsTheComputeStreamAndWaits) {
  HostCopyDevice device;
  const StreamId stream = device.create_stream().value();
  const EventId event = device.create_event().value();
  std::vector<char> source(kSize, 7), target(kSize);
  for (int i = 0; i < 100; ++i) {
    std::memset(target.data(), 0, kSize);
    ASSERT_TRUE(device.copy(target.data(), source.data(), Bytes{kSize}, stream).ok());
    ASSERT_TRUE(device.record(event, stream).ok());
    ASSERT_TRUE(device.wait(StreamId{0}, event).ok());
    ASSERT_EQ(target, source);
  }
  ASSERT_TRUE(device.record(event, StreamId{0}).ok());
  EXPECT_TRUE(device.is_done(event));
  device.destroy_event(event);
}

TEST(HostCopyDevice, WhatIsNotItsOwnIsRefused) {
  HostCopyDevice device;
  char byte = 0;
  EXPECT_EQ(device.copy(&byte, &byte, Bytes{1}, StreamId{0}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(device.record(EventId{99}, StreamId{0}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(device.wait(StreamId{0}, EventId{99}).error().code, ErrorCode::kInvalidArgument);
}

TEST(CudaCopyDevice, WithoutARuntimeInTheProcessSaysSo) {
  const auto opened = CudaCopyDevice::open(0);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(opened.error().message.find("no CUDA runtime is loaded"), std::string::npos);
}

TEST(MemoryNode, OfNoDeviceThereIsNone) {
  EXPECT_FALSE(memory_node_of_pci("ffff:ff:1f.7").has_value());
}

}  // namespace
}  // namespace ebbtide
