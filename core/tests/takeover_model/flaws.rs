//! Worlds in which one thing that the protocol assumes does not hold, or one of its rules is broken on the way to it. In
//! each of them the checks must find something: that shows both that they can, and what each assumption is needed for.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// The fence is confirmed and never put up.
    FenceLies,
    /// The fence is confirmed before it is up.
    FenceAnswersFirst,
    /// The fence cuts off whoever serves the session now.
    FenceByAddress,
    /// The claim word is compared, and then stored to.
    SwapInTwoSteps,
    /// What is taken for the state is what was read before the fence.
    EarlierRead,
    /// The owner answers, and then commits.
    AnswerBeforeCommit,
    /// A target serves what it was offered without waiting for what its swap brings.
    ServesUnasked,
}
