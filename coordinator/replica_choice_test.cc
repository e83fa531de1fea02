#include "coordinator/replica_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/str_cat.h"

namespace polystill::coordinator {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

v1::TeacherEndpoint Endpoint(const std::string& teacher, int server) {
  v1::TeacherEndpoint endpoint;
  endpoint.set_name(teacher);
  endpoint.set_server_id(absl::StrCat(teacher, "-", server));
  endpoint.set_address(absl::StrCat("host:", server));
  return endpoint;
}

std::vector<v1::TeacherEndpoint> Endpoints(const std::string& teacher, int servers) {
  std::vector<v1::TeacherEndpoint> endpoints;
  for (int i = 0; i < servers; ++i) endpoints.push_back(Endpoint(teacher, i));
  return endpoints;
}

std::vector<std::string> ChosenBy(const std::string& worker, const ReplicaChoice& choice) {
  ReplicaChoice::Endpoints chosen;
  choice.For(worker, &chosen);
  std::vector<std::string> ids;
  for (const v1::TeacherEndpoint& endpoint : chosen) ids.push_back(endpoint.server_id());
  return ids;
}

uint64_t DigestFor(const std::string& worker, const ReplicaChoice& choice) {
  ReplicaChoice::Endpoints chosen;
  return choice.For(worker, &chosen);
}

TEST(ReplicaChoice, AFewAreToldAllInTheirOrder) {
  auto endpoints = Endpoints("english", 3);
  endpoints.push_back(Endpoint("french", 0));
  EXPECT_THAT(ChosenBy("w", ReplicaChoice(endpoints)), ElementsAre("english-0", "english-1", "english-2", "french-0"));
  EXPECT_THAT(ChosenBy("w", ReplicaChoice()), SizeIs(0));
}

TEST(ReplicaChoice, OfManyEachWorkerHasSomeAndEveryReplicaSomeWorkers) {
  const ReplicaChoice choice(Endpoints("english", 200));
  std::map<std::string, int> workers_of;
  for (int worker = 0; worker < 1000; ++worker) {
    const auto ids = ChosenBy(absl::StrCat("worker-", worker), choice);
    EXPECT_THAT(std::set<std::string>(ids.begin(), ids.end()), SizeIs(ReplicaChoice::kMost));
    for (const std::string& id : ids) ++workers_of[id];
  }
  EXPECT_THAT(workers_of, SizeIs(200));
  // 40 on average, of arcs that are sums of kMost random ones.
  for (const auto& [id, workers] : workers_of) EXPECT_LT(workers, 120) << id;
}

TEST(ReplicaChoice, AReplicaThatGoesConcernsThoseWorkersAloneThatHadIt) {
  auto endpoints = Endpoints("english", 200);
  const ReplicaChoice before(endpoints);
  endpoints.erase(endpoints.begin() + 17);
  const ReplicaChoice after(endpoints);
  int concerned = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string worker = absl::StrCat("worker-", i);
    const auto had = ChosenBy(worker, before), has = ChosenBy(worker, after);
    const bool had_it = std::find(had.begin(), had.end(), "english-17") != had.end();
    concerned += had_it ? 1 : 0;
    EXPECT_EQ(had == has, !had_it);
    EXPECT_EQ(DigestFor(worker, before) == DigestFor(worker, after), !had_it);
  }
  EXPECT_GT(concerned, 0);
}

TEST(ReplicaChoice, WhatIsTellableOfAReplicaIsInTheDigest) {
  auto endpoints = Endpoints("english", 2);
  const uint64_t before = DigestFor("w", ReplicaChoice(endpoints));
  endpoints[1].set_digest("another package");
  EXPECT_NE(DigestFor("w", ReplicaChoice(endpoints)), before);
}

}  // namespace
}  // namespace polystill::coordinator
