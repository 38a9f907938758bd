// Which live connections a router wants ended.

/// The notification `close`.
public struct CloseOrder: Equatable, Sendable {
    /// By what a connection is known.
    public enum Which: Equatable, Sendable {
        /// Its id, as questions name it.
        case connection(String)
        /// A tag of its verdict.
        case tag(String)
        /// The remote that it is connected with, as the verdict wrote it in canonical form.
        case remote(String)
    }

    public let which: Which
    /// Whether by RST instead of in order.
    public let reset: Bool

    /// Longer texts name nothing: the longest is a Unix path.
    public static let textBytesMax = 512

    public init(which: Which, reset: Bool) {
        self.which = which
        self.reset = reset
    }
}
