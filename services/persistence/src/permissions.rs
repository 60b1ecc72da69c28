//! Who may do what, as a pure table of role and action. No I/O, no state.

use parlance_proto::v1::{ConversationKind, Role};

/// Something a participant wants to do to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageAction {
    /// Change its content.
    Edit,
    /// Empty it for everyone.
    Delete,
}

/// Whether a participant with `role` may do `action` to a message, `own` if they sent it.
///
/// | | own | others' in a group | others' in a direct conversation |
/// | --- | --- | --- | --- |
/// | edit | everyone | nobody | nobody |
/// | delete | everyone | admin, moderator | nobody |
pub fn may(role: Role, kind: ConversationKind, action: MessageAction, own: bool) -> bool {
    if own {
        return true;
    }
    match action {
        MessageAction::Edit => false,
        MessageAction::Delete => {
            kind == ConversationKind::Group && matches!(role, Role::Admin | Role::Moderator)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_s_staff_deletes_what_others_wrote_and_nobody_edits_it() {
        use ConversationKind::{Direct, Group};
        use MessageAction::{Delete, Edit};
        for role in [Role::Member, Role::Moderator, Role::Admin] {
            for kind in [Direct, Group] {
                assert!(may(role, kind, Edit, true) && may(role, kind, Delete, true));
                assert!(!may(role, kind, Edit, false));
                let staff = kind == Group && role != Role::Member;
                assert_eq!(may(role, kind, Delete, false), staff);
            }
        }
    }
}
