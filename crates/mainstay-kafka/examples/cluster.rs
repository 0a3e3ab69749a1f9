//! The cluster that librdkafka keeps in a process, for clients in others: `cluster PARTITIONS TOPIC…` has these topics,
//! writes where it listens, and ends when its standard input does.

#![allow(clippy::print_stdout, reason = "what its caller reads")]
#![allow(clippy::unwrap_used, reason = "a program for tests, which ends where something is wrong")]

use std::io;

use rdkafka::mocking::MockCluster;

fn main() {
    let mut words = std::env::args().skip(1);
    let partitions = words.next().unwrap().parse().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    words.for_each(|topic| cluster.create_topic(&topic, partitions, 1).unwrap());
    println!("{}", cluster.bootstrap_servers());
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}
