//! `grpc.reflection` v1 and v1alpha: what the server offers, for clients that were not built with it.

use mainstay_core::{Error, Result};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

use crate::Service;

const METHODS: [&str; 1] = ["ServerReflectionInfo"];

/// Both services, over the descriptors of `services`.
pub(crate) fn services(services: &[Service]) -> Result<[Service; 2]> {
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.reflection.v1.ServerReflection")
            .with_service_name("grpc.reflection.v1alpha.ServerReflection");
        services.iter().fold(builder, |builder, service| {
            builder.with_service_name(service.name()).register_encoded_file_descriptor_set(service.descriptors())
        })
    };
    let unreadable = |error| Error::from_any(error).context("reading the descriptors of the gRPC services");
    let v1 = builder().build_v1().map_err(unreadable)?;
    let v1alpha = builder().build_v1alpha().map_err(unreadable)?;
    Ok([
        Service::tonic(v1, &METHODS, v1::FILE_DESCRIPTOR_SET),
        Service::tonic(v1alpha, &METHODS, v1alpha::FILE_DESCRIPTOR_SET),
    ])
}
