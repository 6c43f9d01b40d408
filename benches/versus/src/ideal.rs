//! Pure: what a trace would see of an ideal server: one queue, first come first served, nothing else costs time.
//!
//! The one thing it keeps is the order within a connection: a request whose predecessor is under way is passed over
//! until that one is done. No server can be better on average at the tail without knowing how long requests take.

use crate::trace::Trace;

/// From its intended moment to its answer, in ns, for each request, with that many CPUs.
#[must_use]
pub fn latencies_ns(trace: &Trace, servers: usize) -> Vec<u64> {
    let requests = &trace.requests;
    let mut queues = vec![Vec::new(); trace.connections()];
    for index in (0..requests.len()).rev() {
        queues[requests[index].connection].push(index);
    }
    let mut latencies = vec![0; requests.len()];
    let mut server_free = vec![0; servers];
    let mut connection_free = vec![0; queues.len()];
    for _ in requests {
        let server = (0..servers).min_by_key(|server| server_free[*server]);
        let server = server.expect("there is at least one server");
        let startable = |queue: &Vec<usize>| {
            let head = *queue.last()?;
            Some((
                requests[head]
                    .at_ns
                    .max(connection_free[requests[head].connection]),
                head,
            ))
        };
        // The moment at which the next one starts, and who has come first of those that could start then.
        let heads = queues.iter().filter_map(startable);
        let earliest = heads.clone().map(|(at_ns, _)| at_ns).min();
        let start_ns = earliest
            .expect("a request is left")
            .max(server_free[server]);
        let first = heads
            .filter(|(at_ns, _)| *at_ns <= start_ns)
            .map(|(_, head)| head);
        let index = first.min().expect("the earliest is among them");
        let request = requests[index];
        let end_ns = start_ns + request.service_ns;
        server_free[server] = end_ns;
        connection_free[request.connection] = end_ns;
        queues[request.connection].pop();
        latencies[index] = end_ns - request.at_ns;
    }
    latencies
}

#[cfg(test)]
mod tests {
    use crate::ideal::latencies_ns;
    use crate::trace::{COLUMNS, Request, Trace, skewed};

    fn trace(requests: &[(u64, usize, u64)]) -> Trace {
        let request = |&(at_ns, connection, service_ns)| Request {
            at_ns,
            connection,
            service_ns,
        };
        Trace {
            standing: 0,
            one_home: false,
            requests: requests.iter().map(request).collect(),
        }
    }

    #[test]
    fn whoever_is_free_takes_the_first() {
        let trace = trace(&[(0, 0, 10), (0, 1, 4), (1, 2, 4), (2, 3, 4)]);
        assert_eq!(latencies_ns(&trace, 2), [10, 4, 7, 10]);
        assert_eq!(latencies_ns(&trace, 1), [10, 14, 17, 20]);
    }

    #[test]
    fn a_connection_keeps_its_order_and_holds_nobody_else_up() {
        let trace = trace(&[(0, 0, 10), (1, 0, 1), (2, 1, 1)]);
        assert_eq!(latencies_ns(&trace, 2), [10, 10, 1]);
    }

    #[test]
    fn with_many_cpus_only_the_own_connection_is_waited_for() {
        let trace = skewed(&COLUMNS[0], 0.2, 1);
        let latencies = latencies_ns(&trace, 64);
        let waits = latencies.iter().zip(&trace.requests);
        assert!(
            waits
                .clone()
                .all(|(latency, request)| *latency >= request.service_ns)
        );
        // One server is an M/G/1 queue of the same work: nobody is earlier than with many.
        let alone = latencies_ns(&trace, 1);
        assert!(latencies.iter().zip(&alone).all(|(many, one)| many <= one));
    }
}
