#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/tensorboard.pb.h"

namespace polystill::coordinator {

// A file of TensorBoard events: a sequence of records in TFRecord framing, little-endian,
//
//   uint64 length, uint32 masked CRC-32C of the length, `length` bytes of an Event, uint32 masked CRC-32C of those
//
// https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/tensorflow_stub/io/gfile.py and
// https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Not thread-safe.
class EventFile {
 public:
  // Makes the file and its folder, and writes its first event. PERMISSION_DENIED or RESOURCE_EXHAUSTED, naming it.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(const std::string& path, double wall_time);

  // Appends one event, and hands it to the system. RESOURCE_EXHAUSTED when that fails.
  absl::Status Append(const v1::TensorBoardEvent& event);

 private:
  explicit EventFile(const std::string& path) : path_(path), file_(path, std::ios::binary | std::ios::trunc) {}

  const std::string path_;
  std::ofstream file_;
};

// CRC-32C (Castagnoli, RFC 3720 appendix B.4). By hand, since neither Debian 12 nor its Abseil has one.
uint32_t Crc32c(std::string_view bytes);

}  // namespace polystill::coordinator
