// Whom workers run as, and becoming that: after the listeners are bound and the logs opened, and for good.

import CLinux
import Glibc
public import SystemPackage

/// A user with its groups, in numbers.
public struct UserIdentity: Hashable, Sendable {
    public let user: UInt32
    public let group: UInt32
    /// The supplementary ones, the group itself among them.
    public let groups: [UInt32]

    public init(user: UInt32, group: UInt32, groups: [UInt32]) {
        (self.user, self.group, self.groups) = (user, group, groups)
    }

    /// Why nobody can be found by these names.
    public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case noSuchUser
        case noSuchGroup
        /// A number without an entry, whose group nobody knows.
        case noGroup
        /// Only root becomes somebody else.
        case notRoot

        public var description: String {
            switch self {
            case .noSuchUser: "there is no such user"
            case .noSuchGroup: "there is no such group"
            case .noGroup: "this number has no entry in the user database; its group is needed, too"
            case .notRoot: "only root may run workers as somebody else"
            }
        }

        /// Whether the group, and not the user, is what is wrong.
        public var isAboutGroup: Bool { self == .noSuchGroup }
    }

    /// Finds a user and a group by their names or numbers. The user's own groups come along; with a group alone the user
    /// stays, without other groups. Nil when this process is all that already.
    /// The C functions are `getpwnam`, `getgrnam` and `getgrouplist`. For a process with one thread.
    public static func find(user: String?, group: String?) throws(Failure) -> UserIdentity? {
        guard user != nil || group != nil else { return nil }
        var identity = (user: geteuid(), group: getegid())
        var name: String?
        if let user {
            if let entry = getpwnam(user) ?? number(user).flatMap({ getpwuid($0) }) {
                identity = (entry.pointee.pw_uid, entry.pointee.pw_gid)
                name = String(cString: entry.pointee.pw_name)
            } else if let number = number(user) {
                guard group != nil else { throw .noGroup }
                identity.user = number
            } else {
                throw .noSuchUser
            }
        }
        if let group {
            guard let number = getgrnam(group).map(\.pointee.gr_gid) ?? number(group) else { throw .noSuchGroup }
            identity.group = number
        }
        guard identity.user != geteuid() || identity.group != getegid() || (user != nil && geteuid() == 0) else {
            return nil
        }
        guard geteuid() == 0 else { throw .notRoot }
        let groups = name.map { Self.groups(of: $0, identity.group) } ?? [identity.group]
        return UserIdentity(user: identity.user, group: identity.group, groups: groups)
    }

    private static func number(_ text: String) -> UInt32? {
        // The highest one means "leave it as it is" to the kernel.
        guard let number = UInt32(text), number != .max, !text.hasPrefix("+") else { return nil }
        return number
    }

    private static func groups(of user: String, _ group: gid_t) -> [gid_t] {
        var groups = [gid_t](repeating: 0, count: 64)
        while true {
            var count = Int32(clamping: groups.count)
            if getgrouplist(user, group, &groups, &count) >= 0 { return Array(groups.prefix(Int(max(0, count)))) }
            // Now it has said how many there are.
            guard groups.count < 65_536 else { return [group] }
            groups = [gid_t](repeating: 0, count: max(Int(count), groups.count * 2))
        }
    }

    /// Becomes this user, and makes sure that there is no way back. From then on no program that is executed gets more
    /// rights either (prctl(2), PR_SET_NO_NEW_PRIVS). With `isHidden` nobody but root sees this process's memory, as with
    /// `Process.hideMemory`. The C functions are `setgroups`, `setresgid` and `setresuid`.
    public func assume(isHidden: Bool = false) throws(Errno) {
        let error = tp_become_user(user, group, groups, groups.count, isHidden ? 0 : 1)
        guard error == 0 else { throw Errno(rawValue: error) }
    }

    /// Makes an empty file that belongs to this user, unless there is something already. For logs, which a worker has to
    /// be able to open again when it is root no more. The C functions are `open(O_EXCL)` and `fchown`.
    public func provideFile(_ path: String) {
        let raw = Glibc.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0o644)
        guard raw >= 0 else { return }
        let file = Descriptor(owning: raw)
        _ = fchown(file.raw, user, group)
    }

    /// Gives a file to this user; a link itself. The C function is `lchown`.
    public func own(_ path: String) throws(Errno) { _ = try check { lchown(path, user, group) } }
}
