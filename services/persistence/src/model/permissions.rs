//! Who may do what, as a pure table of kind, role and right. No I/O, no state.

use parlance_proto::v1::{ConversationKind, Role};

/// Something a participant wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Send a message.
    Send,
    /// Change the content of an own message.
    EditOwn,
    /// Change the content of somebody else's message.
    EditForeign,
    /// Empty an own message for everyone.
    DeleteOwn,
    /// Empty somebody else's message for everyone.
    DeleteForeign,
    /// Hide a message from oneself.
    Hide,
    /// Mute the conversation for oneself.
    Mute,
    /// Report a message to those who moderate.
    Report,
    /// Mark a message with an emoji, or take that back.
    React,
    /// Begin a thread.
    StartThread,
    /// Tell what was delivered or read.
    Receipts,
    /// Give another title.
    SetTitle,
    /// Give another status, channel or metadata.
    SetDetails,
    /// Add a participant with this role.
    Add(Role),
    /// Remove another participant, who has this role.
    Remove(Role),
    /// Ban a user, who has this role or, where they are none of the participants, that of a member.
    Ban(Role),
    /// End a ban, and list the banned users.
    Unban,
    /// Remove oneself.
    Leave,
    /// Give another participant this role.
    GiveRole(Role),
    /// Delete the conversation for all.
    DeleteConversation,
    /// Change a journal's text.
    EditText,
}

impl Right {
    /// Whether it writes to all, which in a read-only group only admins do.
    pub fn writes(self) -> bool {
        matches!(self, Self::Send | Self::EditOwn | Self::StartThread)
    }

    /// Whether it reaches the other of a direct conversation, which a block prevents.
    pub fn reaches_others(self) -> bool {
        match self {
            Self::Send
            | Self::EditOwn
            | Self::EditForeign
            | Self::React
            | Self::StartThread
            | Self::SetTitle
            | Self::SetDetails
            | Self::EditText
            | Self::Add(_)
            | Self::GiveRole(_) => true,
            Self::DeleteOwn
            | Self::DeleteForeign
            | Self::Hide
            | Self::Mute
            | Self::Report
            | Self::Receipts
            | Self::Remove(_)
            | Self::Ban(_)
            | Self::Unban
            | Self::Leave
            | Self::DeleteConversation => false,
        }
    }
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go ahead.
    Granted,
    /// Others may, this role may not.
    Forbidden,
    /// Nobody can do this in a conversation of this kind.
    NotApplicable,
}

use Verdict::{Forbidden, Granted, NotApplicable};

/// What rights depend on besides the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Two users.
    Direct,
    /// A group with roles.
    Group,
    /// A group that every participant manages.
    OpenGroup,
    /// A shared document.
    Journal,
}

impl Form {
    /// Of a conversation of this kind.
    pub fn of(kind: ConversationKind, open: bool) -> Self {
        match kind {
            ConversationKind::Journal => Self::Journal,
            ConversationKind::Group if open => Self::OpenGroup,
            ConversationKind::Group => Self::Group,
            ConversationKind::Direct | ConversationKind::Unspecified => Self::Direct,
        }
    }
}

/// What a participant with `role` may do in a conversation of `form`.
///
/// In an open group every participant may do what stands under *group: member*, and also change title, status,
/// channel and metadata, and add and remove members.
///
/// | | direct | group: member | moderator | admin | journal: viewer | editor | owner |
/// | --- | --- | --- | --- | --- | --- | --- | --- |
/// | send, react, start threads, receipts, hide, mute, report; edit and delete own | yes | yes | yes | yes | – | – | – |
/// | edit others' messages | no | no | no | no | – | – | – |
/// | delete others' messages | no | no | yes | yes | – | – | – |
/// | title | yes | no | yes | yes | no | yes | yes |
/// | status, channel, metadata | yes | no | no | yes | no | no | yes |
/// | add members | – | no | yes | yes | – | – | – |
/// | add moderators, admins | – | no | no | yes | – | – | – |
/// | add viewers | – | – | – | – | no | yes | yes |
/// | add editors | – | – | – | – | no | no | yes |
/// | remove members | – | no | yes | yes | – | – | – |
/// | remove moderators, admins | – | no | no | yes | – | – | – |
/// | remove viewers, editors | – | – | – | – | no | no | yes |
/// | ban members, end bans | – | no | yes | yes | – | – | – |
/// | ban moderators, admins | – | no | no | yes | – | – | – |
/// | leave | – | yes | yes | yes | yes | yes | – |
/// | change roles | – | no | no | yes | no | no | yes |
/// | delete the conversation | yes | no | no | yes | no | no | yes |
/// | edit the text | – | – | – | – | no | yes | yes |
///
/// – : senseless there, for everyone. In a read-only group only admins send and edit messages and start threads.
pub fn verdict(form: Form, role: Role, right: Right) -> Verdict {
    match form {
        Form::Direct => direct(right),
        Form::Group => group(role, right),
        Form::OpenGroup if is_managing(right) => Granted,
        Form::OpenGroup => group(role, right),
        Form::Journal => journal(role, right),
    }
}

/// What belongs to everyone where there are no roles.
fn is_managing(right: Right) -> bool {
    matches!(
        right,
        Right::SetTitle | Right::SetDetails | Right::Add(Role::Member) | Right::Remove(Role::Member)
    )
}

fn direct(right: Right) -> Verdict {
    match right {
        Right::Send
        | Right::EditOwn
        | Right::DeleteOwn
        | Right::Hide
        | Right::Mute
        | Right::Report
        | Right::React
        | Right::StartThread
        | Right::Receipts
        | Right::SetTitle
        | Right::SetDetails
        | Right::DeleteConversation => Granted,
        Right::EditForeign | Right::DeleteForeign => Forbidden,
        Right::Add(_)
        | Right::Remove(_)
        | Right::Ban(_)
        | Right::Unban
        | Right::Leave
        | Right::GiveRole(_)
        | Right::EditText => NotApplicable,
    }
}

fn group(role: Role, right: Right) -> Verdict {
    let admin = granted(role == Role::Admin);
    let staff = granted(matches!(role, Role::Admin | Role::Moderator));
    match right {
        Right::Send
        | Right::EditOwn
        | Right::DeleteOwn
        | Right::Hide
        | Right::Mute
        | Right::Report
        | Right::React
        | Right::StartThread
        | Right::Receipts
        | Right::Leave => Granted,
        Right::EditForeign => Forbidden,
        Right::DeleteForeign
        | Right::SetTitle
        | Right::Add(Role::Member)
        | Right::Remove(Role::Member)
        | Right::Ban(Role::Member)
        | Right::Unban => staff,
        Right::SetDetails
        | Right::DeleteConversation
        | Right::Remove(_)
        | Right::Ban(_)
        | Right::Add(Role::Moderator | Role::Admin)
        | Right::GiveRole(Role::Member | Role::Moderator | Role::Admin) => admin,
        Right::Add(_) | Right::GiveRole(_) | Right::EditText => NotApplicable,
    }
}

fn journal(role: Role, right: Right) -> Verdict {
    let owner = granted(role == Role::Owner);
    let writer = granted(matches!(role, Role::Owner | Role::Editor));
    match right {
        Right::EditText | Right::SetTitle | Right::Add(Role::Viewer) => writer,
        Right::Add(Role::Editor)
        | Right::Remove(_)
        | Right::GiveRole(Role::Viewer | Role::Editor)
        | Right::SetDetails
        | Right::DeleteConversation => owner,
        Right::Leave if role == Role::Owner => NotApplicable,
        Right::Leave => Granted,
        Right::Send
        | Right::EditOwn
        | Right::EditForeign
        | Right::DeleteOwn
        | Right::DeleteForeign
        | Right::Hide
        | Right::Mute
        | Right::Report
        | Right::React
        | Right::StartThread
        | Right::Receipts
        | Right::Ban(_)
        | Right::Unban
        | Right::Add(_)
        | Right::GiveRole(_) => NotApplicable,
    }
}

fn granted(yes: bool) -> Verdict {
    if yes { Granted } else { Forbidden }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [(Form, Role); 9] = [
        (Form::Direct, Role::Member),
        (Form::Group, Role::Member),
        (Form::Group, Role::Moderator),
        (Form::Group, Role::Admin),
        (Form::Journal, Role::Viewer),
        (Form::Journal, Role::Editor),
        (Form::Journal, Role::Owner),
        (Form::OpenGroup, Role::Member),
        (Form::OpenGroup, Role::Admin),
    ];

    /// The whole table: direct, then member, moderator, admin, then viewer, editor, owner, then member and admin
    /// of an open group.
    /// y granted, n forbidden, - senseless.
    const TABLE: [(Right, &str); 31] = [
        (Right::Send, "yyyy---yy"),
        (Right::EditOwn, "yyyy---yy"),
        (Right::EditForeign, "nnnn---nn"),
        (Right::DeleteOwn, "yyyy---yy"),
        (Right::DeleteForeign, "nnyy---ny"),
        (Right::Hide, "yyyy---yy"),
        (Right::Mute, "yyyy---yy"),
        (Right::Report, "yyyy---yy"),
        (Right::React, "yyyy---yy"),
        (Right::StartThread, "yyyy---yy"),
        (Right::Receipts, "yyyy---yy"),
        (Right::SetTitle, "ynyynyyyy"),
        (Right::SetDetails, "ynnynnyyy"),
        (Right::Add(Role::Member), "-nyy---yy"),
        (Right::Add(Role::Moderator), "-nny---ny"),
        (Right::Add(Role::Admin), "-nny---ny"),
        (Right::Add(Role::Viewer), "----nyy--"),
        (Right::Add(Role::Editor), "----nny--"),
        (Right::Add(Role::Owner), "---------"),
        (Right::Remove(Role::Member), "-nyynnyyy"),
        (Right::Remove(Role::Admin), "-nnynnyny"),
        (Right::Remove(Role::Viewer), "-nnynnyny"),
        (Right::Ban(Role::Member), "-nyy---ny"),
        (Right::Ban(Role::Admin), "-nny---ny"),
        (Right::Unban, "-nyy---ny"),
        (Right::Leave, "-yyyyy-yy"),
        (Right::GiveRole(Role::Admin), "-nny---ny"),
        (Right::GiveRole(Role::Editor), "----nny--"),
        (Right::GiveRole(Role::Owner), "---------"),
        (Right::DeleteConversation, "ynnynnyny"),
        (Right::EditText, "----nyy--"),
    ];

    #[test]
    fn the_table_is_as_documented() {
        for (right, row) in TABLE {
            for ((form, role), cell) in COLUMNS.into_iter().zip(row.chars()) {
                let expected = match cell {
                    'y' => Granted,
                    'n' => Forbidden,
                    _ => NotApplicable,
                };
                assert_eq!(
                    verdict(form, role, right),
                    expected,
                    "{right:?} of {role:?} in {form:?}"
                );
            }
        }
    }
}
