#pragma once

#include <string>

#include "tests/simulation/cluster.h"

namespace polystill::simulation {

// A teacher server: loads what it is ordered to, and comes back to each new coordinator with what it serves.
class Teacher final : public Process {
 public:
  Teacher(Cluster* cluster, int number);

  void Start();
  void Kill() override;
  void Hear(const Link* link, const v1::TeacherOrder& order);
  // host:port, another one after each start.
  std::string address() const;
  bool answers() const { return alive() && !stopped() && serves_; }

 private:
  void Connect();
  void Lost(const Link* link);
  void Say(const v1::TeacherMessage& message);
  void Beat();

  Cluster& cluster_;
  Link* link_ = nullptr;
  bool welcome_ = false;
  bool serves_ = false;
  int64_t seen_term_ = 0;
};

}  // namespace polystill::simulation
