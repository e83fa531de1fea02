#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// The coordinator's end of a GetIndex call: the bytes of one index in chunks, each written once the last one is gone.
// Deletes itself.
class IndexStream final : public grpc::ServerWriteReactor<v1::IndexChunk> {
 public:
  static constexpr size_t kChunkBytes = 64 << 10;

  // `on_done` is called at the end.
  IndexStream(std::shared_ptr<const std::string> bytes, std::function<void()> on_done)
      : bytes_(std::move(bytes)), on_done_(std::move(on_done)) {
    WriteNext();
  }

 private:
  void WriteNext() {
    if (sent_ == bytes_->size()) return Finish(grpc::Status::OK);
    const size_t size = std::min(kChunkBytes, bytes_->size() - sent_);
    chunk_.set_data(bytes_->data() + sent_, size);
    sent_ += size;
    StartWrite(&chunk_);
  }

  void OnWriteDone(bool ok) override { return ok ? WriteNext() : Finish(grpc::Status::CANCELLED); }

  void OnDone() override {
    on_done_();
    delete this;
  }

  const std::shared_ptr<const std::string> bytes_;
  const std::function<void()> on_done_;
  size_t sent_ = 0;
  v1::IndexChunk chunk_;
};

}  // namespace polystill::coordinator
