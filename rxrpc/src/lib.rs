//! RxRPC.
