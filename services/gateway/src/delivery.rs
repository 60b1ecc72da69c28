//! Delivery: which sessions receive what, and that nothing is missed.
//!
//! | module | owns |
//! | --- | --- |
//! | [`repair`] | comparing with the database, regularly and after every loss |
//! | [`users`] | connected users, their conversations and what they are notified of |
//! | [`presence`] | the lease of this replica, and which sessions receive whose presence |
//! | [`rooms`] | conversations that are followed here: order, gap repair, fan-out |
//! | [`presence_input`] | what rooms and sessions report to presence |
//! | [`served`] | what users were served |
//! | [`journal`] | journals that are open here: their versions, and what whole-text clients may show |
//! | [`awareness`] | whose name the states of a page in a journal bear |
//!
//! Each knows only those below it. Must not know who asked, or how events look on the wire: dialects encode them.

pub mod awareness;
pub mod journal;
pub mod presence;
pub mod presence_input;
pub mod repair;
pub mod rooms;
pub mod served;
pub mod users;
