//! stub
macro_rules! n { ($($n:ident($t:ty))*) => { $( #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)] /// n
 pub struct $n(pub $t); )* } }
n! { VolumeId(u32) VnodeId(u32) Uniquifier(u32) CellId(u32) }
