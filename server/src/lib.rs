pub mod controllers;
pub mod raft;
pub mod scheduler;
pub mod storage;
pub mod store;
