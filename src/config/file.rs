//! Stand-in of the skeleton.
