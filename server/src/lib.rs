pub mod raft;
pub mod storage;
pub mod store;
