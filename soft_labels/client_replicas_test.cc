#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "soft_labels/client.h"
#include "soft_labels/scripted_teacher.h"

// Several replicas of one teacher: compared, hedged, lost, and asked again for what they keep.
namespace polystill::soft_labels {
namespace {

using testing::HasSubstr;

v1::DescribeReply OfIds(bool caches = false) {
  v1::DescribeReply description = Description();
  description.mutable_signature()->set_input(v1::Signature::INPUT_IDS);
  description.mutable_signature()->set_vocab_size(1'000);
  description.mutable_signature()->set_max_length(20);
  description.set_caches(caches);
  return description;
}

// Logits of a record: the sum of its ids plus `error`, and minus that.
v1::LabelReply AnswerIds(const v1::LabelRequest& request, float error) {
  std::vector<float> logits;
  for (const v1::LabelInput& input : request.inputs()) {
    const auto& ids = input.ids().ids();
    const float sum = std::accumulate(ids.begin(), ids.end(), 0.0f) + error;
    logits.insert(logits.end(), {sum, -sum});
  }
  v1::LabelReply reply;
  reply.set_request_id(request.request_id());
  reply.set_teacher_digest(kDigest);
  *reply.add_labels() = EncodeDense(request.spec().codec(), logits, request.inputs_size(), 2).value();
  return reply;
}

// What a replica did; outlives it.
struct Seen {
  std::atomic<int> canaries = 0;
  Mutex mutex;
  std::multiset<int> records ABSL_GUARDED_BY(mutex);
};

std::multiset<int> RecordsOf(Seen& seen) {
  MutexLock lock(&seen.mutex);
  return seen.records;
}

// Answers until the client goes, or `requests` were answered.
ScriptedTeacher::Script Sums(Seen* seen, float error = 0, int requests = 1 << 30,
                             const v1::DescribeReply& description = OfIds()) {
  return [=](Stream& stream) {
    if (!Open(stream, description)) return grpc::Status::OK;
    for (int answered = 0; answered < requests;) {
      const v1::LabelRequest request = NextRequest(stream);
      if (request.inputs_size() == 0) return grpc::Status::OK;
      const bool is_canary = request.inputs(0).id().starts_with("canary");
      if (is_canary) {
        ++seen->canaries;
      } else {
        ++answered;
        MutexLock lock(&seen->mutex);
        for (const v1::LabelInput& input : request.inputs()) seen->records.insert(input.ids().ids(0));
      }
      Say(stream, AnswerIds(request, error));
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "killed");
  };
}

std::vector<v1::LabelInput> OneId(int first, int count) {
  std::vector<v1::LabelInput> inputs(count);
  for (int i = 0; i < count; ++i) {
    inputs[i].set_id(absl::StrCat("r", first + i));
    inputs[i].mutable_ids()->add_ids(first + i);
  }
  return inputs;
}

LabelClient::Options Compared(double tolerance = 0.1) {
  LabelClient::Options options = FastOptions();
  options.parity_tolerance = tolerance;
  options.parity_patience_ms = options.give_up_after_ms;
  return options;
}

void ExpectSums(LabelClient& client, int first, int count) {
  const auto labels = Ask(client, OneId(first, count)).get();
  ASSERT_TRUE(labels.ok()) << labels.status();
  for (int i = 0; i < count; ++i) EXPECT_EQ(labels->outputs[0].numbers[2 * i], first + i);
}

TEST(ReplicasTest, OneThatDiffersIsRefusedByNameThoughItsDigestIsTheSame) {
  Seen good_seen, other_seen;
  ScriptedTeacher good({Sums(&good_seen)}), other({Sums(&other_seen, 0.5)});
  auto client = LabelClient::Connect({good.address(), other.address()}, Compared()).value();
  for (int i = 0; i < 20; ++i) ExpectSums(*client, 0, 8);
  EXPECT_EQ(good_seen.canaries, 1);
  EXPECT_EQ(other_seen.canaries, 1);
  EXPECT_EQ(client->counts().refused_replicas, 1);
  MutexLock lock(&other_seen.mutex);
  EXPECT_TRUE(other_seen.records.empty());
}

TEST(ReplicasTest, DifferencesWithinTheToleranceAreTaken) {
  Seen seen, other_seen;
  ScriptedTeacher good({Sums(&seen)}), other({Sums(&other_seen, 0.5)});
  auto client = LabelClient::Connect({good.address(), other.address()}, Compared(0.6)).value();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Ask(*client, OneId(0, 8)).get().ok());
  EXPECT_EQ(client->counts().refused_replicas, 0);
  MutexLock lock(&other_seen.mutex);
  EXPECT_FALSE(other_seen.records.empty());
}

TEST(ReplicasTest, OneThatComesBackOtherThanItWasIsRefused) {
  Seen seen;
  ScriptedTeacher teacher({Sums(&seen, 0, 2), Sums(&seen, 0.5)});
  LabelClient::Options options = Compared();
  auto client = LabelClient::Connect({teacher.address()}, options).value();
  ExpectSums(*client, 0, 8);
  const absl::Status status = Ask(*client, OneId(8, 4)).get().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(teacher.address()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("by up to 0.5, more than parity_tolerance 0.1"));
  EXPECT_EQ(seen.canaries, 2);
}

TEST(ReplicasTest, ACanaryThatMeetsAFullQueueIsAskedAgain) {
  Seen seen;
  ScriptedTeacher teacher({[](Stream& stream) {
                             Open(stream, OfIds());
                             Say(stream, Refusal(NextRequest(stream), absl::StatusCode::kResourceExhausted, "full"));
                             NextRequest(stream);
                             return grpc::Status::OK;
                           },
                           Sums(&seen)});
  auto client = LabelClient::Connect({teacher.address()}, Compared()).value();
  ExpectSums(*client, 0, 4);
  EXPECT_EQ(seen.canaries, 1);
}

TEST(ReplicasTest, ReplicasComeAndGo) {
  Seen first_seen, second_seen;
  auto first = std::make_unique<ScriptedTeacher>(std::vector{Sums(&first_seen)});
  LabelClient::Options options = Compared();
  options.waits_for_replicas = true;
  options.give_up_after_ms = 1'000;
  auto client = LabelClient::Connect({first->address()}, options).value();
  ExpectSums(*client, 0, 4);
  EXPECT_TRUE(client->HasReplica());
  client->SetReplicas({}, {});
  auto waits = Ask(*client, OneId(4, 4));
  first.reset();
  EXPECT_EQ(waits.wait_for(std::chrono::milliseconds(1'500)), std::future_status::timeout);  // longer than it gives up
  EXPECT_FALSE(client->HasReplica());
  ScriptedTeacher second({Sums(&second_seen)}), other({Sums(&second_seen, 0.5)});
  client->SetReplicas({second.address(), other.address()}, {});
  EXPECT_TRUE(waits.get().ok());
  // The newcomer that differs gives no label, however long it takes to find out.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  do {
    ExpectSums(*client, 8, 4);
  } while (client->counts().refused_replicas == 0 && std::chrono::steady_clock::now() < deadline);
  EXPECT_EQ(client->counts().refused_replicas, 1);
}

// A resolver that knows one name.
class Names {
 public:
  void Set(std::vector<std::string> addresses) {
    MutexLock lock(&mutex_);
    addresses_ = std::move(addresses);
  }
  NameLookup look_up() {
    return [this](const std::string& host, const std::function<void(HostAddresses)>& then) {
      EXPECT_EQ(host, "labels.test");
      MutexLock lock(&mutex_);
      then(addresses_);
    };
  }

 private:
  Mutex mutex_;
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mutex_);
};

TEST(ReplicasTest, EveryAddressBehindANameIsOne) {
  Seen seen[3];
  auto first = std::make_unique<ScriptedTeacher>(std::vector{Sums(&seen[0])});
  ScriptedTeacher second({Sums(&seen[1])}, absl::StrCat("127.0.0.2:", first->port()));
  ScriptedTeacher other({Sums(&seen[2], 0.5)}, absl::StrCat("127.0.0.3:", first->port()));
  const std::string address = absl::StrCat("labels.test:", first->port());
  Names names;
  names.Set({"127.0.0.1", "127.0.0.3"});
  LabelClient::Options options = Compared();
  options.waits_for_replicas = true;
  options.look_up = names.look_up();
  auto client = LabelClient::Connect({address}, options).value();
  EXPECT_EQ(client->replica_count(), 2);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  do {
    ExpectSums(*client, 0, 4);
  } while (client->counts().refused_replicas == 0 && std::chrono::steady_clock::now() < deadline);
  EXPECT_EQ(client->counts().refused_replicas, 1) << "they are compared";
  names.Set({"127.0.0.2"});
  first.reset();
  ExpectSums(*client, 4, 4);
  EXPECT_EQ(client->replica_count(), 1);
  EXPECT_EQ(RecordsOf(seen[1]), (std::multiset<int>{4, 5, 6, 7}));
  client->SetReplicas({address}, {});
  ExpectSums(*client, 8, 4);
  EXPECT_EQ(RecordsOf(seen[2]), (std::multiset<int>{}));
}

TEST(ReplicasTest, ASlowResolverHoldsUpNobody) {
  std::function<void(HostAddresses)> late;
  LabelClient::Options options = Compared();
  options.give_up_after_ms = 50;
  options.look_up = [&late](const std::string&, std::function<void(HostAddresses)> then) { late = std::move(then); };
  const absl::Status none = LabelClient::Connect({"labels.test:7000"}, options).status();
  EXPECT_TRUE(absl::IsUnavailable(none)) << none;
  EXPECT_THAT(std::string(none.message()), HasSubstr("labels.test:7000: the name is being looked up"));
  late({{"127.0.0.1"}});  // the client is gone
  Seen seen;
  ScriptedTeacher teacher({Sums(&seen)});
  options.give_up_after_ms = FastOptions().give_up_after_ms;
  auto client = LabelClient::Connect({"labels.test:7000", teacher.address()}, options).value();
  ExpectSums(*client, 0, 4);
}

TEST(ReplicasTest, AReplicaMayComeBackToItsAddress) {
  Seen seen;
  ScriptedTeacher teacher({Sums(&seen), Sums(&seen)});
  auto client = LabelClient::Connect({teacher.address()}, FastOptions()).value();
  ExpectSums(*client, 0, 4);
  client->SetReplicas({}, {});
  client->SetReplicas({teacher.address()}, {});
  ExpectSums(*client, 4, 4);
}

TEST(ReplicasTest, AReplicaThatIsDownHoldsUpNobody) {
  Seen seen;
  ScriptedTeacher teacher({Sums(&seen)});
  auto client = LabelClient::Connect({"127.0.0.1:1", teacher.address()}, Compared()).value();
  ExpectSums(*client, 0, 4);
}

// Streams of both replicas break again and again with requests in their hands.
TEST(ReplicasTest, ReplicasThatDieMidStreamLoseAndDoubleNothing) {
  Seen seen[2];
  std::vector<ScriptedTeacher::Script> scripts[2];
  for (int i = 0; i < 2; ++i) {
    for (int lives = 1; lives <= 6; ++lives) scripts[i].push_back(Sums(&seen[i], 0, 2 * lives + i));
    scripts[i].push_back(Sums(&seen[i]));
  }
  ScriptedTeacher one(scripts[0]), two(scripts[1]);
  auto client = LabelClient::Connect({one.address(), two.address()}, Compared()).value();
  std::vector<std::future<absl::StatusOr<LabelClient::Labels>>> answers;
  for (int k = 0; k < 60; ++k) answers.push_back(Ask(*client, OneId(10 * k, 10)));
  for (int k = 0; k < 60; ++k) {
    const auto labels = answers[k].get();  // a second answer would throw
    ASSERT_TRUE(labels.ok()) << labels.status();
    ASSERT_EQ(labels->outputs[0].numbers.size(), 20u);
    EXPECT_EQ(labels->bytes, 80);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(labels->outputs[0].numbers[2 * i], 10 * k + i);
  }
  EXPECT_GT(client->counts().retries, 0);
}

TEST(ReplicasTest, AStalledReplicaIsHedgedLongBeforeTheTimeOut) {
  Seen seen;
  // Answers ten requests, then never again, and reads on.
  ScriptedTeacher stalled({[&](Stream& stream) {
    Open(stream, OfIds());
    for (int i = 0;; ++i) {
      const v1::LabelRequest request = NextRequest(stream);
      if (request.inputs_size() == 0) return grpc::Status::OK;
      if (i < 10) Say(stream, AnswerIds(request, 0));
    }
  }});
  ScriptedTeacher good({Sums(&seen)});
  LabelClient::Options options = FastOptions();
  options.hedging = {.least_samples = 5, .share = 0.5};
  auto client = LabelClient::Connect({good.address(), stalled.address()}, options).value();
  const auto start = std::chrono::steady_clock::now();
  for (int k = 0; k < 20; ++k) ExpectSums(*client, 20 * k, 20);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(options.request_timeout_ms / 2));
  const LabelClient::Counts counts = client->counts();
  EXPECT_GE(counts.hedges, 1);
  EXPECT_EQ(counts.hedge_wins, counts.hedges);
  EXPECT_LE(2 * counts.hedges, counts.requests);
}

TEST(ReplicasTest, WhatReplicasKeepIsAskedOfTheSameOneAgain) {
  Seen seen[3];
  const auto script = [&](int i) { return Sums(&seen[i], 0, 1 << 30, OfIds(/*caches=*/true)); };
  ScriptedTeacher one({script(0)}), two({script(1)}), three({script(2)});
  const std::vector<std::string> addresses = {one.address(), two.address(), three.address()};
  for (int pass = 1; pass <= 3; ++pass) {
    // In another order, and by another client.
    LabelClient::Options options = Compared();
    options.hedging.share = 0;  // hedges go elsewhere
    auto client = LabelClient::Connect(addresses, options).value();
    for (int k = 0; k < 12; ++k) ExpectSums(*client, 5 * ((7 * k + pass) % 12), 5);
  }
  std::set<int> all;
  for (Seen& replica : seen) {
    MutexLock lock(&replica.mutex);
    EXPECT_GE(replica.records.size(), 3u * 8);  // of 20 on average
    for (const int record : replica.records) {
      all.insert(record);
      EXPECT_EQ(replica.records.count(record), 3u) << record;
    }
  }
  EXPECT_EQ(all.size(), 60u);
}

TEST(ReplicasTest, AServerThatComesBackElsewhereIsAskedForWhatItKeeps) {
  Seen seen[2][2];
  for (int start = 0; start < 2; ++start) {
    const auto script = [&](int i) { return Sums(&seen[start][i], 0, 1 << 30, OfIds(/*caches=*/true)); };
    ScriptedTeacher one({script(0)}), two({script(1)});
    LabelClient::Options options = Compared();
    options.hedging.share = 0;
    options.server_ids = {"english-0", "english-1"};
    std::vector<std::string> addresses = {one.address(), two.address()};
    if (start == 1) {
      std::swap(options.server_ids[0], options.server_ids[1]);
      std::swap(addresses[0], addresses[1]);
    }
    auto client = LabelClient::Connect(addresses, options).value();
    ExpectSums(*client, 0, 60);
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_GT(RecordsOf(seen[0][i]).size(), 10u);
    EXPECT_EQ(RecordsOf(seen[0][i]), RecordsOf(seen[1][i]));
  }
}

TEST(ReplicasTest, EveryServerHasAName) {
  LabelClient::Options options = FastOptions();
  options.server_ids = {"english-0"};
  EXPECT_TRUE(absl::IsInvalidArgument(LabelClient::Connect({"127.0.0.1:1", "127.0.0.1:2"}, options).status()));
}

TEST(ReplicasTest, InputsAreNotDividedWhereOneReplicaForgets) {
  Seen seen[2];
  ScriptedTeacher one({Sums(&seen[0], 0, 1 << 30, OfIds(true))}), two({Sums(&seen[1], 0, 1 << 30, OfIds(false))});
  auto client = LabelClient::Connect({one.address(), two.address()}, Compared()).value();
  ExpectSums(*client, 0, 4);  // one request
  EXPECT_EQ(client->counts().requests, 1);
}

}  // namespace
}  // namespace polystill::soft_labels
