// How this program was started: what USR2 starts again.

import Glibc

/// The command that started this program, with the program's path made absolute.
///
/// Not /proc/self/exe, which has symbolic links resolved: a `current -> v2` that has been moved on would start the old
/// version again.
public struct Invocation: Hashable, Sendable {
    /// The program's path comes first.
    public let arguments: [String]

    /// The program.
    public var path: String { arguments.first ?? "" }

    /// Take it at the start, while the first argument still leads to this program.
    ///
    /// When it does not (it can be anything), the file that runs is taken instead.
    public init(arguments: [String], environment: [String]) {
        let found = arguments.first.flatMap { Self.absolute($0, environment) }
        let path = found.flatMap { Self.isThisProgram($0) ? $0 : nil } ?? Self.running ?? found ?? ""
        self.arguments = [path] + arguments.dropFirst()
    }

    private static func absolute(_ name: String, _ environment: [String]) -> String? {
        guard let path = try? Spawn.executable(name, environment: environment) else { return nil }
        if path.hasPrefix("/") { return path }
        guard let folder = folder(environment) else { return nil }
        var rest = path[...]
        while rest.hasPrefix("./") { rest = rest.dropFirst(2) }
        return folder.hasSuffix("/") ? folder + rest : "\(folder)/\(rest)"
    }

    /// The working directory as the shell calls it: PWD keeps the symbolic links, if it still is that directory.
    private static func folder(_ environment: [String]) -> String? {
        if let entry = environment.last(where: { $0.hasPrefix("PWD=/") }) {
            let name = String(entry.dropFirst(4))
            if let identity = FileIdentity(following: name), identity == FileIdentity(following: ".") { return name }
        }
        guard let name = getcwd(nil, 0) else { return nil }
        defer { free(name) }
        return String(cString: name)
    }

    private static func isThisProgram(_ path: String) -> Bool {
        guard let identity = FileIdentity(following: path) else { return false }
        return identity == FileIdentity(following: "/proc/self/exe")
    }

    private static var running: String? {
        guard let path = realpath("/proc/self/exe", nil) else { return nil }
        defer { free(path) }
        return String(cString: path)
    }
}
