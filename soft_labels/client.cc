#include "soft_labels/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/client_loop.h"

namespace polystill::soft_labels {

struct LabelClient::State {
  ClientLoop loop;
};

LabelClient::Counts LabelClient::Counts::operator+(const Counts& other) const {
  return {requests + other.requests, hedges + other.hedges, hedge_wins + other.hedge_wins, retries + other.retries,
          refused_replicas + other.refused_replicas};
}

LabelClient::Counts LabelClient::Counts::operator-(const Counts& other) const {
  return {requests - other.requests, hedges - other.hedges, hedge_wins - other.hedge_wins, retries - other.retries,
          refused_replicas - other.refused_replicas};
}

LabelClient::LabelClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
LabelClient::~LabelClient() = default;

absl::StatusOr<std::unique_ptr<LabelClient>> LabelClient::Connect(const std::vector<std::string>& addresses,
                                                                  Options options) {
  if (addresses.empty()) return absl::InvalidArgumentError("a label client needs the address of a teacher");
  if (!options.server_ids.empty() && options.server_ids.size() != addresses.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.server_ids.size(), " server_ids are not those of ", addresses.size(), " addresses"));
  }
  std::unique_ptr<State> state(new State{ClientLoop(addresses, std::move(options))});
  RETURN_IF_ERROR(state->loop.WaitUntilReady());
  return std::unique_ptr<LabelClient>(new LabelClient(std::move(state)));
}

const v1::DescribeReply& LabelClient::description() const { return state_->loop.description(); }

LabelClient::Counts LabelClient::counts() const { return state_->loop.counts(); }

void LabelClient::SetReplicas(std::vector<std::string> addresses, std::vector<std::string> server_ids) {
  state_->loop.SetReplicas({{std::move(addresses), std::move(server_ids)}});
}

bool LabelClient::HasReplica() const { return state_->loop.HasReplica(); }

int64_t LabelClient::replica_count() const { return state_->loop.replica_count(); }

void LabelClient::Label(v1::LabelSpec spec, std::vector<v1::LabelInput> inputs, Callback callback) {
  state_->loop.Ask({std::move(spec), std::move(inputs), std::move(callback)});
}

}  // namespace polystill::soft_labels
