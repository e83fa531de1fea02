#include "tests/simulation/teacher.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "tests/simulation/coordinator.h"

namespace polystill::simulation {

constexpr char kDigest[] = "package";

Teacher::Teacher(Cluster* cluster, int number)
    : Process(&cluster->world(), absl::StrCat("teacher ", number)), cluster_(*cluster) {}

void Teacher::Start() {
  Begin();
  link_ = nullptr;
  serves_ = false;
  seen_term_ = 0;
  Connect();
  Beat();
}

void Teacher::Kill() {
  if (!alive()) return;
  cluster_.Bury(this);
  Process::Kill();
}

std::string Teacher::address() const { return absl::StrCat(name(), ":", life()); }

void Teacher::Connect() {
  if (link_ != nullptr) return;
  Coordinator* coordinator = cluster_.FindCoordinator(this);
  if (coordinator == nullptr) return Post(world().Time(200, 1000), [this] { Connect(); });
  v1::TeacherMessage message;
  auto& hello = *message.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_server_id(absl::StrCat(name(), ".", life()));
  hello.set_teacher("english");
  hello.set_address(address());
  if (serves_) hello.set_digest(kDigest);
  welcome_ = false;
  link_ = coordinator->Accept(this, &message, [this](const Link* link) { Lost(link); });
  Post(
      Millis(5000),
      [this, link = link_] {
        if (link != link_ || welcome_) return;
        cluster_.network().Close(link, this);
        Lost(link);
      },
      false);
}

void Teacher::Lost(const Link* link) {
  if (link != link_) return;
  link_ = nullptr;
  Post(world().Time(100, 1000), [this] { Connect(); });
}

void Teacher::Say(const v1::TeacherMessage& message) {
  if (link_ == nullptr || !welcome_) return;
  auto* coordinator = static_cast<Coordinator*>(link_->server);
  link_->SendUp([coordinator, link = link_, message] { coordinator->Hear(link, message); });
}

void Teacher::Beat() {
  Post(
      Millis(1000),
      [this] {
        v1::TeacherMessage message;
        message.mutable_heartbeat();
        Say(message);
        Beat();
      },
      false);
}

void Teacher::Hear(const Link* link, const v1::TeacherOrder& order) {
  if (link != link_) return;
  world().Note([&] { return absl::StrCat(name(), " hears ", order.ShortDebugString()); });
  if (order.has_welcome()) {
    if (order.welcome().term() < seen_term_) {
      cluster_.network().Close(link_, this);
      return Lost(link);
    }
    seen_term_ = order.welcome().term();
    welcome_ = true;
  } else if (order.has_load()) {
    Post(world().Time(50, 800), [this] {
      serves_ = true;
      v1::TeacherMessage message;
      message.mutable_ready()->set_digest(kDigest);
      Say(message);
    });
  } else {
    cluster_.network().Close(link_, this);
    Kill();
  }
}

}  // namespace polystill::simulation
