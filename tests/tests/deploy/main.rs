//! What is in `deploy/`: rendered, held against Kubernetes' schemas and against each other.

mod alerts;
mod chart;
mod configuration;
mod kustomize;
mod privileges;
mod unit;
