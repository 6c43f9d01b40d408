//! M4: a slot gets a new tenant while another loop still holds events of the old one (I4).
//!
//! The table of the model is one slot with a generation; what decides is the comparison. The real table is
//! slotmap's, which compares alike.

use std::sync::Arc;

use loom::thread;

use crate::{
    atomics::{Mutex, explore},
    driver::readiness::{Interest, Readiness, Ready},
};

#[derive(Debug)]
struct Slot {
    generation: u32,
    tenant: Option<Arc<Readiness>>,
}

/// By index and generation, or by index alone.
type Find = fn(&Slot, u32) -> Option<Arc<Readiness>>;

fn same_generation(slot: &Slot, generation: u32) -> Option<Arc<Readiness>> {
    let tenant = slot.tenant.as_ref();
    tenant.filter(|_| slot.generation == generation).cloned()
}

/// The home deregisters a socket and registers another in its slot, while a thief delivers an event of the first.
fn a_batch_outlives_its_socket(find: Find) {
    explore(move || {
        let old = Arc::new(Readiness::default());
        let slot = Arc::new(Mutex::new(Slot {
            generation: 1,
            tenant: Some(Arc::clone(&old)),
        }));
        let thief = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let slot = slot.lock().expect("no model panics under this lock");
                if let Some(tenant) = find(&slot, 1) {
                    let _nobody = tenant.record(Ready::READABLE);
                }
            })
        };
        slot.lock().expect("no model panics under this lock").tenant = None;
        let new = Arc::new(Readiness::default());
        {
            let mut slot = slot.lock().expect("no model panics under this lock");
            slot.generation += 1;
            slot.tenant = Some(Arc::clone(&new));
        }
        thief.join().expect("the thief does not panic");
        let stale = new.look(Interest::Read).ready();
        assert!(stale.is_none(), "a stale event");
    });
}

#[test]
fn an_event_of_the_old_tenant_is_dropped() {
    a_batch_outlives_its_socket(same_generation);
}

#[test]
#[should_panic(expected = "a stale event")]
fn mutant_without_the_generation_delivers_to_a_stranger() {
    a_batch_outlives_its_socket(|slot, _| slot.tenant.clone());
}
