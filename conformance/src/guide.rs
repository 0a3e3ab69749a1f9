#![doc = include_str!("../../docs/grpc.md")]

mainstay::grpc::include_proto!(pub mod v1, "greet.v1");

#[cfg(test)]
mod tests {
    #[test]
    fn the_guide_shows_the_proto_file_that_its_examples_are_made_of() {
        let shown = format!("```proto\n{}```", include_str!("../proto/greet.proto"));
        assert!(include_str!("../../docs/grpc.md").contains(&shown));
    }
}
