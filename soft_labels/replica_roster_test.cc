#include "soft_labels/replica_roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "soft_labels/replica_ring.h"

namespace polystill::soft_labels {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

ReplicaRoster Roster(const std::vector<std::string>& addresses, const std::vector<std::string>& server_ids = {}) {
  ReplicaRoster roster("run/worker-0", {});
  roster.Set({addresses, server_ids});
  return roster;
}

std::vector<std::string> HostsToLookUp(ReplicaRoster& roster, int64_t now_ms, bool has_replica = true) {
  std::vector<std::string> hosts;
  for (const ReplicaRoster::LookUp& name : roster.Step(now_ms, has_replica).look_up) hosts.push_back(name.host);
  return hosts;
}

TEST(ReplicaRoster, WhichAddressesAreLookedUp) {
  const struct {
    const char* address;
    const char* server_id;
    const char* host;  // empty: none
  } cases[] = {
      {"labels:7000", "", "labels"},   {"labels.example.org.:7000", "", "labels.example.org."},
      {"labels:7000", "server-1", ""},  // one server, however many addresses it has
      {"10.7.0.1:7000", "", ""},       {"[::1]:7000", "", ""},
      {"[fe80::1%eth0]:7000", "", ""}, {"dns:///labels:7000", "", ""},
      {"ipv4:10.7.0.1:7000", "", ""},
  };
  for (const auto& c : cases) {
    ReplicaRoster roster = Roster({c.address}, {c.server_id});
    const ReplicaRoster::Actions actions = roster.Step(0, false);
    if (*c.host == 0) {
      EXPECT_THAT(actions.look_up, IsEmpty()) << c.address;
      EXPECT_EQ(actions.next_ms, kNever);
      EXPECT_THAT(roster.replicas().addresses, ElementsAre(c.address));
      EXPECT_THAT(roster.replicas().server_ids, ElementsAre(c.server_id));
    } else {
      ASSERT_THAT(actions.look_up, SizeIs(1)) << c.address;
      EXPECT_EQ(actions.look_up[0].host, c.host);
      EXPECT_EQ(actions.look_up[0].address, c.address);
      EXPECT_THAT(roster.replicas().addresses, IsEmpty()) << "before it is found";
    }
  }
}

TEST(ReplicaRoster, WhatALookupMakesOfTheReplicas) {
  const std::vector<std::string> two = {"10.7.0.3", "10.7.0.2"};
  struct Case {
    HostAddresses before;
    HostAddresses now;
    const char* replicas;
    const char* says;
  };
  const HostAddresses fails = absl::UnavailableError("try again");
  const HostAddresses none = std::vector<std::string>();
  const std::vector<Case> cases = {
      {two, two, "10.7.0.2:70,10.7.0.3:70", ""},
      {two, {{"10.7.0.2", "10.7.0.3", "10.7.0.2"}}, "10.7.0.2:70,10.7.0.3:70", ""},
      {two,
       {{"10.7.0.2", "10.7.0.4"}},
       "10.7.0.2:70,10.7.0.4:70",
       "teacher at labels:70: its replicas are 10.7.0.2:70, 10.7.0.4:70; came: 10.7.0.4:70; left: 10.7.0.3:70"},
      {two, {{"10.7.0.2"}}, "10.7.0.2:70", "its replicas are 10.7.0.2:70; left: 10.7.0.3:70"},
      // Both families are the same servers; one alone is taken as it is.
      {two, {{"fd00::2", "10.7.0.2", "fd00::3", "10.7.0.3"}}, "10.7.0.2:70,10.7.0.3:70", ""},
      {two, {{"fd00::2", "fd00::3"}}, "[fd00::2]:70,[fd00::3]:70", "came: [fd00::2]:70, [fd00::3]:70"},
      // Nothing is lost with the resolver.
      {two, fails, "10.7.0.2:70,10.7.0.3:70",
       "teacher at labels:70: the name cannot be looked up: try again; the replicas stay as they are"},
      {two, none, "10.7.0.2:70,10.7.0.3:70", "the name has no address; the replicas stay as they are"},
      {fails, fails, "", ""},
      {fails, none, "", ""},
      {fails, two, "10.7.0.2:70,10.7.0.3:70", "its replicas are 10.7.0.2:70, 10.7.0.3:70; came: "},
  };
  for (const Case& c : cases) {
    ReplicaRoster roster = Roster({"labels:70"});
    EXPECT_THAT(HostsToLookUp(roster, 0), ElementsAre("labels"));
    EXPECT_NE(roster.Found("labels:70", c.before), "");
    const std::string said = roster.Found("labels:70", c.now);
    EXPECT_EQ(absl::StrJoin(roster.replicas().addresses, ","), c.replicas);
    EXPECT_THAT(said, HasSubstr(c.says));
    EXPECT_EQ(said.empty(), *c.says == 0) << said;
  }
}

TEST(ReplicaRoster, TroubleIsToldOnceAndItsEnd) {
  ReplicaRoster roster = Roster({"labels:70", "other:70"});
  EXPECT_EQ(roster.Troubles(), "labels:70: the name is being looked up; other:70: the name is being looked up");
  EXPECT_EQ(roster.Found("other:70", absl::UnavailableError("no such name")),
            "teacher at other:70: the name cannot be looked up: no such name");
  EXPECT_EQ(roster.Found("labels:70", {{"10.7.0.2"}}),
            "teacher at labels:70: its replicas are 10.7.0.2:70; came: 10.7.0.2:70");
  EXPECT_EQ(roster.Troubles(), "other:70: the name cannot be looked up: no such name");
  EXPECT_NE(roster.Found("labels:70", absl::UnavailableError("try again")), "");
  EXPECT_EQ(roster.Found("labels:70", absl::UnavailableError("try again")), "");
  EXPECT_EQ(roster.Found("labels:70", {{"10.7.0.2"}}), "teacher at labels:70: the name is found again, as it was");
  EXPECT_EQ(roster.Found("labels:70", {{"10.7.0.2"}}), "");
}

TEST(ReplicaRoster, LooksAgainEveryTenSecondsOrSo) {
  ReplicaRoster roster = Roster({"labels:70", "10.7.0.9:70"});
  EXPECT_THAT(HostsToLookUp(roster, 1'000, false), ElementsAre("labels"));
  // While one is under way, which may take long, no other one is.
  const ReplicaRoster::Actions waits = roster.Step(60'000, true);
  EXPECT_THAT(waits.look_up, IsEmpty());
  EXPECT_EQ(waits.next_ms, kNever);
  roster.Found("labels:70", {{"10.7.0.2"}});
  EXPECT_THAT(HostsToLookUp(roster, 60'000), ElementsAre("labels"));
  roster.Found("labels:70", {{"10.7.0.2"}});
  const int64_t next_ms = roster.Step(60'000, true).next_ms;
  EXPECT_THAT(next_ms, AllOf(Ge(65'000), Le(70'000)));
  EXPECT_THAT(HostsToLookUp(roster, next_ms - 1), IsEmpty());
  EXPECT_THAT(HostsToLookUp(roster, next_ms), ElementsAre("labels"));
}

TEST(ReplicaRoster, LooksSoonerWhileNoReplicaAnswersAndLessOftenInTheEnd) {
  ReplicaRoster roster = Roster({"labels:70"});
  roster.Step(0, false);
  roster.Found("labels:70", {{"10.7.0.2"}});
  EXPECT_THAT(HostsToLookUp(roster, 2'000, true), IsEmpty());
  EXPECT_THAT(HostsToLookUp(roster, 2'000, false), ElementsAre("labels"));
  int64_t now_ms = 2'000;
  const int64_t longest[] = {2'000, 4'000, 8'000, 10'000, 10'000, 10'000};
  for (const int64_t pause : longest) {
    roster.Found("labels:70", absl::UnavailableError("try again"));
    const int64_t next_ms = roster.Step(now_ms, false).next_ms;
    EXPECT_THAT(next_ms - now_ms, AllOf(Ge(pause / 2), Le(pause)));
    now_ms = next_ms;
    EXPECT_THAT(HostsToLookUp(roster, now_ms, false), ElementsAre("labels"));
  }
  // One that answers in between starts the pauses anew.
  roster.Found("labels:70", {{"10.7.0.2"}});
  roster.Step(now_ms, true);
  EXPECT_THAT(roster.Step(now_ms, false).next_ms - now_ms, Le(1'000));
}

TEST(ReplicaRoster, OfManyAddressesEachClientHasAShare) {
  std::vector<std::string> hosts;
  for (int i = 0; i < 100; ++i) hosts.push_back(absl::StrCat("10.7.0.", i));
  const auto share = [&](const std::string& client, const std::vector<std::string>& found) {
    ReplicaRoster roster(client, {});
    roster.Set({{"labels:70"}, {}});
    EXPECT_THAT(roster.Found("labels:70", found), HasSubstr(" for this client, of 100; came: "));
    return roster.replicas().addresses;
  };
  const std::vector<std::string> first = share("run/worker-0", hosts);
  EXPECT_THAT(first, SizeIs(ReplicaRing::kMost));
  EXPECT_NE(first, share("run/worker-1", hosts));
  std::reverse(hosts.begin(), hosts.end());
  EXPECT_EQ(first, share("run/worker-0", hosts)) << "in whatever order they come";
}

TEST(ReplicaRoster, OthersMayBeGiven) {
  ReplicaRoster roster = Roster({"labels:70"});
  roster.Step(0, false);
  roster.Found("labels:70", {{"10.7.0.2"}});
  // As when a job's teachers are told again: what is known of the name stays.
  roster.Set({{"10.7.0.9:70", "labels:70"}, {"server-9", ""}});
  EXPECT_THAT(roster.replicas().addresses, ElementsAre("10.7.0.9:70", "10.7.0.2:70"));
  EXPECT_THAT(roster.replicas().server_ids, ElementsAre("server-9", ""));
  EXPECT_THAT(HostsToLookUp(roster, 1), IsEmpty());
  roster.Step(20'000, true);
  roster.Set({{"10.7.0.9:70"}, {}});
  EXPECT_EQ(roster.Found("labels:70", {{"10.7.0.3"}}), "") << "an answer about a name that is gone";
  EXPECT_THAT(roster.replicas().addresses, ElementsAre("10.7.0.9:70"));
  EXPECT_EQ(roster.Step(20'000, true).next_ms, kNever);
}

}  // namespace
}  // namespace polystill::soft_labels
