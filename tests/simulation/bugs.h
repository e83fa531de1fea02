#pragma once

namespace polystill::simulation {

// Faults of design that a test plants, one at a time, to see that an invariant finds it. None is in the programs: each
// is what the simulated world around the machines does wrong.
struct Bugs {
  // A worker ...
  bool no_staging = false;             // receives a state in the place of the one that it holds
  bool no_verification = false;        // does not notice that a state was torn on its way
  bool early_optimizer = false;        // runs its optimiser after the first bucket of two
  bool no_generation_fence = false;    // obeys an order of an older generation
  bool no_term_fence = false;          // obeys an older coordinator
  bool smallest_state = false;         // goes on from the smallest state
  bool steps_alone = false;            // goes on from the state of most steps, whichever generation agreed on it
  bool done_forgets = false;           // lets its state go when it is done
  bool checkpoint_told_early = false;  // tells of a checkpoint before that is whole
  bool without_labels = false;         // goes on without the labels of a teacher that is gone
  bool hides_that_it_hangs = false;    // says that its training thread waits for orders, whatever that does
  // A coordinator ...
  bool reply_before_durable = false;    // orders before it records what the order depends on
  bool generation_not_durable = false;  // forgets the last generation's number with its process
  bool members_not_durable = false;     // forgets that generation's members
  bool no_store_fence = false;          // of an older term still writes to the store
  bool fenced_checkpoint = false;       // admits a checkpoint of an older generation
  bool newcomer_is_member = false;      // takes a process that comes in a dead member's place for that member
};

}  // namespace polystill::simulation
